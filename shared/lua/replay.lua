-- ARGV: id, step: the delivery is to be made once more and at once, with a schedule of its own; its receiver is asked
-- again, disabled or not. Answers a word: `gone` when nothing was ever to be delivered.
local id, step = unpack(ARGV)
local step_key = key('step', id, step)
local held = redis.call('HMGET', step_key, 'state', 'receiver', 'queue')
local status = redis.call('HGET', key('job', id), 'status')
if not status or not held[1] then return 'gone' end
if not terminal(status) then return 'early' end
if held[2] then forget_receiver(held[2]) end
redis.call('HDEL', step_key, 'tries', 'failures')
if held[1] == 'leased' then return 'sending' end
redis.call('HSET', step_key, 'state', 'waiting', 'claims', 0)
redis.call('HSET', key('job', id), 'webhook_status', 'pending')
if held[1] == 'done' or redis.call('ZREM', key('later', held[3]), ref(id, step)) == 1 then
  line_up(id, step, held[3])
end
unsaved(id)
return 'replayed'
