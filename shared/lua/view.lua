-- What those who look on may know, as it is at one moment: costs a few commands for each queue, however many jobs there
-- are. Answers instant ms, unsaved outcomes, memory used and its bound, then lists: of queues (name, waiting, later, busy,
-- ms that the first has waited), and name and value in turn of `backlog`, `fresh`, `counters` and `ended`; and the ms of
-- the last sweep.
local at = now()

-- Of so many tenants at either end of the line somebody has waited longest, or nearly so.
local LOOKED_AT = 100

local function oldest_ms(queue)
  local oldest = 0
  for _, range in ipairs({{0, LOOKED_AT - 1}, {-LOOKED_AT, -1}}) do
    for _, tenant in ipairs(redis.call('ZRANGE', key('lines', queue), range[1], range[2])) do
      local head = redis.call('ZRANGE', key('waiting', queue, tenant), 0, 0)[1]
      local since = redis.call('HGET', key('step', split(head)), 'since')
      oldest = math.max(oldest, at - tonumber(since or at))
    end
  end
  return oldest
end

local queues = {}
for _, queue in ipairs(redis.call('SMEMBERS', prefix .. 'queues')) do
  local waiting = tonumber(redis.call('HGET', prefix .. 'lengths', queue) or 0)
  local later, busy = redis.call('ZCARD', key('later', queue)), redis.call('ZCARD', key('busy', queue))
  table.insert(queues, {queue, waiting, later, busy, oldest_ms(queue)})
end
local memory = redis.call('INFO', 'memory')
return {
  at,
  redis.call('ZCARD', prefix .. 'unsaved'),
  tonumber(string.match(memory, 'used_memory:(%d+)')),
  tonumber(string.match(memory, '\nmaxmemory:(%d+)') or 0),
  queues,
  redis.call('HGETALL', prefix .. 'backlog'),
  redis.call('HGETALL', prefix .. 'fresh'),
  redis.call('HGETALL', prefix .. 'counters'),
  redis.call('HGETALL', prefix .. 'ended'),
  tonumber(redis.call('GET', prefix .. 'swept_at') or 0),
}
