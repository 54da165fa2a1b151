-- ARGV: id, record (JSON), webhook body or '', deliveries (JSON list), bytes of the recording, '' when it is gone
-- An ended job that Redis forgot, or remembers from before its end, is again as it ended.
local id, record, webhook, deliveries, bytes = unpack(ARGV)
if terminal(redis.call('HGET', key('job', id), 'status')) then return 'ended' end
if redis.call('EXISTS', key('job', id)) == 1 then
  settle_owed(id)
  count_recording(id, nil)
end
for _, name in ipairs(redis.call('SMEMBERS', key('steps', id))) do
  finish_step(id, name)
end
redis.call('ZREM', prefix .. 'deadlines', id)
redis.call('DEL', key('job', id), key('deliveries', id))
set_fields(id, record)
local key_id = redis.call('HGET', key('job', id), 'key_id')
if key_id then redis.call('SADD', prefix .. 'holders', key_id) end
if bytes ~= '' then count_recording(id, tonumber(bytes)) end
local restored = redis.call('HMGET', key('job', id), 'tenant', 'created_at', 'expires_at', 'webhook_status')
redis.call('SADD', prefix .. 'tenants', restored[1])
redis.call('ZADD', key('jobs', restored[1]), restored[2], id)
redis.call('ZADD', prefix .. 'expiry', restored[3], id)
for _, entry in ipairs(cjson.decode(deliveries)) do
  redis.call('RPUSH', key('deliveries', id), entry)
end
if webhook ~= '' and (restored[4] == 'pending' or restored[4] == 'retrying') then
  offer(id, 'deliver-0', 'deliver', webhook, 0)
elseif webhook ~= '' then
  -- Kept, so that it can be replayed.
  redis.call('HSET', key('step', id, 'deliver-0'), 'state', 'done', 'queue', 'deliver', 'body', webhook, 'attempt', 0,
    'claims', 0, 'audio_ms', 0)
  redis.call('SADD', key('steps', id), 'deliver-0')
  address(id, 'deliver-0')
end
emit(id, 'state', cjson.encode({status = redis.call('HGET', key('job', id), 'status')}))
redis.call('EXPIRE', key('events', id), 3600)
return 'ok'
