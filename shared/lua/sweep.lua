-- ARGV: queue, most
-- Puts back what nobody looks after any more: lapsed leases and hints that were never claimed.
local queue, most = ARGV[1], tonumber(ARGV[2])
local at = now()
local expired, resent = 0, 0
for _, reference in ipairs(redis.call('ZRANGEBYSCORE', key('busy', queue), '-inf', at, 'LIMIT', 0, most)) do
  local id, step = split(reference)
  local state = redis.call('HGET', key('step', id, step), 'state')
  if state == 'leased' then
    expired = expired + 1
  elseif state == 'waiting' then
    resent = resent + 1
  end
  if state == 'leased' or state == 'waiting' then
    come_back_to_line(id, step, queue, 0)
  else
    no_longer_busy(id, step, queue)
  end
end
if expired > 0 then redis.call('HINCRBY', prefix .. 'counters', 'leases_expired', expired) end
if resent > 0 then redis.call('HINCRBY', prefix .. 'counters', 'hints_resent', resent) end
return {expired, resent}
