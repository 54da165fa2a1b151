-- ARGV: id, step, attempt, delay ms, '1' when the step failed: hands a step back unfinished. Only a failure counts
local id, step, attempt, delay_ms, counts = unpack(ARGV)
local word = refused(id, step, attempt)
if word then return word end
if counts == '1' then
  redis.call('HINCRBY', key('step', id, step), 'failures', 1)
else
  redis.call('HINCRBY', key('step', id, step), 'claims', -1)
end
come_back_to_line(id, step, redis.call('HGET', key('step', id, step), 'queue'), delay_ms)
return 'ok'
