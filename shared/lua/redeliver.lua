-- ARGV: id, step, attempt, log entry (JSON), delay ms: the receiver did not take it, try later
local id, step, attempt, entry, delay_ms = unpack(ARGV)
local word = refused(id, step, attempt)
if word then return word end
redis.call('RPUSH', key('deliveries', id), entry)
redis.call('LTRIM', key('deliveries', id), -20, -1)
redis.call('HSET', key('job', id), 'webhook_status', 'retrying')
redis.call('HINCRBY', key('step', id, step), 'tries', 1)
come_back_to_line(id, step, 'deliver', delay_ms)
return 'ok'
