-- ARGV: id, step, attempt, log entry (JSON), delay ms: the receiver did not take it, try later
local id, step, attempt, entry, delay_ms = unpack(ARGV)
local word = refused(id, step, attempt)
if word then return word end
redis.call('RPUSH', key('deliveries', id), entry)
redis.call('LTRIM', key('deliveries', id), -20, -1)
redis.call('HSET', key('job', id), 'webhook_status', 'retrying')
local step_key = key('step', id, step)
unqueue(id, step)
redis.call('HSET', step_key, 'state', 'waiting')
redis.call('HINCRBY', step_key, 'tries', 1)
line_up(id, step, 'deliver', delay_ms)
return 'ok'
