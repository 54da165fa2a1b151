-- ARGV: queue, capacity, hint ms
-- Takes due steps, in the order of their line, up to what live workers can hold; returns their references to send as hints.
-- A hint that nobody claims comes back by `sweep`.
local queue, capacity, hint_ms = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local waiting, busy = key('waiting', queue), key('busy', queue)
local room = capacity - redis.call('ZCARD', busy)
if room <= 0 then return {} end
local at = now()
local due = redis.call('ZRANGEBYSCORE', waiting, '-inf', at, 'LIMIT', 0, room)
for _, reference in ipairs(due) do
  redis.call('ZREM', waiting, reference)
  redis.call('ZADD', busy, at + hint_ms, reference)
end
return due
