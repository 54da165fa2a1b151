-- Set before every script: names of keys, the clock, and the few acts that scripts share.
-- KEYS[1] is the prefix of all our keys. Instants are milliseconds of Redis TIME, never a worker's clock.
local prefix = KEYS[1]

local function now()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

local function key(kind, ...)
  return prefix .. kind .. ':' .. table.concat({...}, ':')
end

local function ref(id, step)
  return id .. '/' .. step
end

local function split(reference)
  return string.match(reference, '^([^/]+)/(.+)$')
end

local function terminal(status)
  return status == 'completed' or status == 'failed' or status == 'canceled' or status == 'expired'
end

local function emit(id, kind, body)
  redis.call('XADD', key('events', id), 'MAXLEN', '~', 20000, '*', 'kind', kind, 'body', body)
end

-- Puts a step in line. A level of priority is worth a minute of waiting, so low ones get their turn too. All shifts
-- go back in time: a score in the future means "not before", and only a delayed step has one.
local function line_up(id, step, queue, delay_ms)
  local score = now() + tonumber(delay_ms)
  if tonumber(delay_ms) == 0 and string.sub(step, 1, 7) ~= 'deliver' then
    local priority = tonumber(redis.call('HGET', key('job', id), 'priority') or 0)
    score = score - (priority + 10) * 60000
  end
  redis.call('ZADD', key('waiting', queue), score, ref(id, step))
end

-- A new step waits in its queue. Offered twice, it stays what it is.
local function offer(id, step, queue, body)
  local step_key = key('step', id, step)
  if redis.call('EXISTS', step_key) == 1 then return false end
  redis.call('HSET', step_key, 'state', 'waiting', 'queue', queue, 'body', body, 'attempt', 0, 'claims', 0)
  redis.call('SADD', key('steps', id), step)
  redis.call('SADD', prefix .. 'queues', queue)
  line_up(id, step, queue, 0)
  return true
end

-- Takes the step out of its queue for good or until it is offered again.
local function unqueue(id, step)
  local queue = redis.call('HGET', key('step', id, step), 'queue')
  if not queue then return end
  redis.call('ZREM', key('waiting', queue), ref(id, step))
  redis.call('ZREM', key('busy', queue), ref(id, step))
end

-- The fence: nil when `attempt` still holds the step, else the word its late worker is refused with.
local function refused(id, step, attempt)
  local status = redis.call('HGET', key('job', id), 'status')
  if not status then return 'gone' end
  if terminal(status) and string.sub(step, 1, 7) ~= 'deliver' then return 'ended' end
  local held = redis.call('HMGET', key('step', id, step), 'state', 'attempt')
  if held[1] ~= 'leased' or tonumber(held[2]) ~= tonumber(attempt) then return 'fenced' end
  return nil
end

local function renew(id, step, lease_ms)
  local step_key = key('step', id, step)
  local lapses = now() + tonumber(lease_ms)
  redis.call('HSET', step_key, 'lapses', lapses)
  redis.call('ZADD', key('busy', redis.call('HGET', step_key, 'queue')), lapses, ref(id, step))
end

local function finish_step(id, step)
  unqueue(id, step)
  redis.call('HSET', key('step', id, step), 'state', 'done')
  redis.call('HDEL', key('step', id, step), 'lapses')
end

-- The last part done and all parts known: the file can be assembled.
local function offer_finish_when_whole(id)
  local counts = redis.call('HMGET', key('job', id), 'parts', 'parts_done', 'prepared')
  if counts[3] == '1' and tonumber(counts[1] or 0) == tonumber(counts[2] or 0) then
    redis.call('HSET', key('job', id), 'stage', 'finishing')
    offer(id, 'finish', 'prepare', '{}')
  end
end

local function set_fields(id, json)
  for name, value in pairs(cjson.decode(json)) do
    redis.call('HSET', key('job', id), name, value)
  end
end
