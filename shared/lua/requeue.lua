-- ARGV: id, step, worker or '' (whoever holds it): by an operator's word the step goes back to its line at once, from a
-- worker, from `later` or from a hint that leads nowhere; whoever held it is refused from now on. As after a lapsed lease
-- the beginning counts: what workers die of must come to an end. Answers a word and the queue.
local id, step, worker = unpack(ARGV)
local record = redis.call('HMGET', key('job', id), 'status', 'schema')
local held = redis.call('HMGET', key('step', id, step), 'state', 'queue', 'worker')
local queue = held[2]
if not record[1] or not held[1] then return {'gone', ''} end
if tonumber(record[2] or 1) > SCHEMA then return {'newer', queue} end
if terminal(record[1]) and not is_delivery(step) then return {'ended', queue} end
if held[1] == 'done' then return {'done', queue} end
if worker ~= '' and (held[1] ~= 'leased' or held[3] ~= worker) then return {'other', queue} end
if redis.call('ZSCORE', key('waiting', queue, line_of(id, step)), ref(id, step)) then return {'waiting', queue} end
redis.call('ZREM', key('later', queue), ref(id, step))
come_back_to_line(id, step, queue, 0)
return {'requeued', queue}
