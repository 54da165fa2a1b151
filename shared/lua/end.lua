-- ARGV: id, step or '' (nobody holds one: a cancel, a deadline), attempt, status, fields (JSON), webhook body or '',
--       retention ms, ms after which the recording itself goes
-- The only way into a terminal state. Outcome and outbox row are one act.
local id, step, attempt, status, fields, webhook, retention_ms, media_ms = unpack(ARGV)
local current = redis.call('HGET', key('job', id), 'status')
if not current then return 'gone' end
if terminal(current) then return 'ended' end
if step ~= '' then
  local word = refused(id, step, attempt)
  if word then return word end
end
local at = now()
set_fields(id, fields)
redis.call('HSET', key('job', id), 'status', status, 'finished_at', at, 'expires_at', at + tonumber(retention_ms))
redis.call('HDEL', key('job', id), 'stage')
settle_owed(id)
for _, name in ipairs(redis.call('SMEMBERS', key('steps', id))) do
  finish_step(id, name)
end
redis.call('ZREM', prefix .. 'deadlines', id)
redis.call('ZADD', prefix .. 'expiry', at + math.min(tonumber(retention_ms), tonumber(media_ms)), id)
if webhook ~= '' then
  redis.call('HSET', key('job', id), 'webhook_status', 'pending')
  offer(id, 'deliver-0', 'deliver', webhook, 0)
end
count_end(id, status, fields)
unsaved(id)
emit(id, 'state', cjson.encode({status = status}))
-- Whoever follows has read to the end by then; the transcript tells the rest.
redis.call('EXPIRE', key('events', id), 3600)
return 'ok'
