-- ARGV: queue, capacity, hint ms
-- Takes steps in fair order, up to what live workers can hold; returns their references to send as hints. A hint that
-- nobody claims comes back by `sweep`. A paused queue gives nothing out.
local queue, capacity, hint_ms = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
if is_paused(queue) then return {} end
local at = now()
for _, reference in ipairs(redis.call('ZRANGEBYSCORE', key('later', queue), '-inf', at, 'LIMIT', 0, 1000)) do
  redis.call('ZREM', key('later', queue), reference)
  local id, step = split(reference)
  line_up(id, step, queue)
end
local chosen = {}
for _ = 1, capacity - redis.call('ZCARD', key('busy', queue)) do
  local tenant = redis.call('ZRANGE', key('lines', queue), 0, 0)[1]
  if not tenant then break end
  local reference = redis.call('ZRANGE', key('waiting', queue, tenant), 0, 0)[1]
  local id, step = split(reference)
  set_out(id, step, queue, at + hint_ms)
  table.insert(chosen, reference)
end
return chosen
