-- ARGV: id, step, attempt, delay ms, '1' when the claim is to count: hands a step back unfinished
local id, step, attempt, delay_ms, counts = unpack(ARGV)
local word = refused(id, step, attempt)
if word then return word end
local step_key = key('step', id, step)
unqueue(id, step)
redis.call('HSET', step_key, 'state', 'waiting')
if counts ~= '1' then redis.call('HINCRBY', step_key, 'claims', -1) end
redis.call('HDEL', step_key, 'lapses')
line_up(id, step, redis.call('HGET', step_key, 'queue'), delay_ms)
return 'ok'
