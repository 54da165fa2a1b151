-- ARGV: id, tombstone ms: the data of an ended job is gone; its record stays a while to say so
local id, tombstone_ms = ARGV[1], tonumber(ARGV[2])
local status = redis.call('HGET', key('job', id), 'status')
if not status or not terminal(status) or status == 'expired' then return 'ended' end
redis.call('HSET', key('job', id), 'status', 'expired', 'outcome', status)
count_recording(id, nil)
redis.call('ZADD', prefix .. 'expiry', now() + tombstone_ms, id)
redis.call('ZREM', prefix .. 'unsaved', id)
redis.call('DEL', key('events', id))
for _, step in ipairs(redis.call('SMEMBERS', key('steps', id))) do
  redis.call('DEL', key('windows', id, step))
end
emit(id, 'state', '{"status":"expired"}')
redis.call('EXPIRE', key('events', id), 3600)
return 'ok'
