-- ARGV: id, step: a hint came to a worker that takes nothing more; the step goes back to its line. Answers its queue, or
-- '' when somebody has the step already.
local id, step = ARGV[1], ARGV[2]
local held = redis.call('HMGET', key('step', id, step), 'state', 'queue')
if held[1] ~= 'waiting' or not redis.call('ZSCORE', key('busy', held[2]), ref(id, step)) then return '' end
come_back_to_line(id, step, held[2], 0)
return held[2]
