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

-- Of the slots for deliveries, a receiver that takes them well may have half, any other one. All of a tenant's that are
-- new may have three quarters, those that failed last an eighth: there is always room for one who answers.
local SHARES = {good = 1, new = 0.75, bad = 0.125}

local function flights(name)
  return tonumber(redis.call('HGET', prefix .. 'flights', name) or 0)
end

local function has_enough(line, capacity)
  local how = standing(line)
  if flights(line) >= (how == 'good' and math.max(1, math.floor(capacity / 2)) or 1) then return true end
  local class = string.match(line, '^(.*)|') .. '|' .. how
  if flights(class) < math.max(1, math.floor(capacity * SHARES[how])) then return false end
  redis.call('SADD', key('aside', class), line)
  return true
end

-- Out of the lines until one of those under way has come back: see `arrive`.
local function set_aside(queue, line)
  redis.call('HSET', key('given', queue), line, redis.call('ZSCORE', key('lines', queue), line))
  redis.call('ZREM', key('lines', queue), line)
end

local function choose(queue, capacity)
  local room = math.min(most, capacity - redis.call('ZCARD', key('busy', queue)))
  while room > 0 do
    local line = redis.call('ZRANGE', key('lines', queue), 0, 0)[1]
    if not line then return end
    local reference = redis.call('ZRANGE', key('waiting', queue, line), 0, 0)[1]
    local id, step = split(reference)
    if redis.call('HEXISTS', key('step', id, step), 'line') == 1 and has_enough(line, capacity) then
      set_aside(queue, line)
    else
      set_out(id, step, queue, at + hint_ms)
      table.insert(chosen, queue)
      table.insert(chosen, reference)
      room = room - 1
    end
  end
end

for index = 3, #ARGV, 2 do
  if not is_paused(ARGV[index]) then
    line_up_due(ARGV[index])
    choose(ARGV[index], tonumber(ARGV[index + 1]))
  end
end
return chosen
