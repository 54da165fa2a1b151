-- ARGV: id, ms at which the rest of the job goes: its recording was deleted before that
local id, rest_ms = ARGV[1], ARGV[2]
redis.call('ZADD', prefix .. 'expiry', 'XX', rest_ms, id)
count_recording(id, nil)
return 'ok'
