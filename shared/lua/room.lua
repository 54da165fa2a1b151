-- ARGV: id, bytes of a recording that was fetched
-- Counts it for the job's API key, as `fetched` will again; not when the key would then have more stored than it may. 1 or 0.
local id, bytes = ARGV[1], tonumber(ARGV[2])
local record = redis.call('HMGET', key('job', id), 'key_id', 'most_stored')
if record[2] then
  local own = tonumber(redis.call('HGET', key('stored', record[1]), id) or 0)
  local others = tonumber(redis.call('HGET', key('usage', record[1]), 'stored') or 0) - own
  if others + bytes > tonumber(record[2]) then return 0 end
end
count_recording(id, bytes)
return 1
