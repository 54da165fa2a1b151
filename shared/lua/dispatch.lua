-- ARGV: hint ms, most steps of a queue, then queue and capacity, queue and capacity …
-- Takes steps of each queue in fair order, up to what live workers can hold; returns queue and reference of each, to send
-- as hints. A hint that nobody claims comes back by `sweep`. A paused queue gives nothing out.
local hint_ms, most = tonumber(ARGV[1]), tonumber(ARGV[2])
local at = now()
local chosen = {}

local function line_up_due(queue)
  for _, reference in ipairs(redis.call('ZRANGEBYSCORE', key('later', queue), '-inf', at, 'LIMIT', 0, 1000)) do
    redis.call('ZREM', key('later', queue), reference)
    local id, step = split(reference)
    line_up(id, step, queue)
  end
end

local function choose(queue, capacity)
  for _ = 1, math.min(most, capacity - redis.call('ZCARD', key('busy', queue))) do
    local tenant = redis.call('ZRANGE', key('lines', queue), 0, 0)[1]
    if not tenant then return end
    local reference = redis.call('ZRANGE', key('waiting', queue, tenant), 0, 0)[1]
    local id, step = split(reference)
    set_out(id, step, queue, at + hint_ms)
    table.insert(chosen, queue)
    table.insert(chosen, reference)
  end
end

for index = 3, #ARGV, 2 do
  if not is_paused(ARGV[index]) then
    line_up_due(ARGV[index])
    choose(ARGV[index], tonumber(ARGV[index + 1]))
  end
end
return chosen
