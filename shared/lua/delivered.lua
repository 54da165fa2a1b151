-- ARGV: id, step, attempt, log entry (JSON), webhook status
-- Ends a delivery: it arrived, or nobody will try again.
local id, step, attempt, entry, status = unpack(ARGV)
local word = refused(id, step, attempt)
if word then return word end
redis.call('RPUSH', key('deliveries', id), entry)
redis.call('LTRIM', key('deliveries', id), -20, -1)
redis.call('HSET', key('job', id), 'webhook_status', status)
finish_step(id, step)
if redis.call('HGET', key('job', id), 'status') ~= 'expired' then unsaved(id) end
return 'ok'
