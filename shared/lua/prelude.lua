-- Set before every script: names of keys, the clock, and the few acts that scripts share.
-- KEYS[1] is the prefix of all our keys. Instants are milliseconds of Redis TIME, never a worker's clock; amounts of
-- audio that are added up are whole milliseconds, so that they come out even.
local prefix = KEYS[1]

-- A record of a later schema is left to those who know it.
local SCHEMA = 1

-- However short, a step takes a slot.
local LEAST_MS = 1000
local MINUTE_MS = 60000
local LAST_PART = 600

local function now()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

local function key(kind, ...)
  return prefix .. kind .. ':' .. table.concat({...}, ':')
end

-- API keys lie apart from all else, so that a user of Redis may read them and no more.
local function owned(...)
  return string.gsub(prefix, ':$', '-keys:') .. table.concat({...}, ':')
end

-- From a bucket that holds `most` and fills again evenly in a minute; kept is the instant at which it is full. What is left
-- or -1 (there was none), ms until one more is free, ms until all are.
local function take(bucket, most)
  local at, each_ms = now(), MINUTE_MS / most
  local full_at = math.max(tonumber(redis.call('GET', bucket) or 0), at)
  local wait_ms = full_at + each_ms - at - MINUTE_MS
  if wait_ms > 0 then return {-1, math.ceil(wait_ms), math.ceil(full_at - at)} end
  full_at = full_at + each_ms
  local whole_ms = math.ceil(full_at - at)
  redis.call('SET', bucket, string.format('%.3f', full_at), 'PX', math.max(1, whole_ms))
  return {math.floor((MINUTE_MS - (full_at - at)) / each_ms + 0.0001), 0, whole_ms}
end

local function ref(id, step)
  return id .. '/' .. step
end

local function split(reference)
  return string.match(reference, '^([^/]+)/(.+)$')
end

local function is_delivery(step)
  return string.sub(step, 1, 7) == 'deliver'
end

local function part_number(step)
  return tonumber(string.match(step, '^part%-(%d+)$') or 0)
end

local function terminal(status)
  return status == 'completed' or status == 'failed' or status == 'canceled' or status == 'expired'
end

local function emit(id, kind, body)
  redis.call('XADD', key('events', id), 'MAXLEN', '~', 20000, '*', 'kind', kind, 'body', body)
end

-- The lines. Steps wait in one line for each queue and tenant, the lines of a queue in `lines`, by what each tenant has
-- been given: milliseconds of audio. Who has been given least is next, which shares as deficit round robin does and needs
-- no rounds. Steps that may not begin yet are in `later`, those that were sent or are held in `busy`.

-- A job's steps stand where the job came, a part a minute behind the one before it, so that a long file leaves room for
-- newcomers; a level of priority is worth a minute, so low ones get their turn too.
local function place(id, step)
  local record = redis.call('HMGET', key('job', id), 'created_at', 'priority')
  if is_delivery(step) then return now() end
  local behind = math.min(part_number(step), LAST_PART) - tonumber(record[2] or 0)
  return tonumber(record[1]) + behind * MINUTE_MS
end

-- Audio of a step that is still to be worked on.
local function left_ms(id, step)
  local amounts = redis.call('HMGET', key('step', id, step), 'audio_ms', 'done_ms')
  return math.max(LEAST_MS, tonumber(amounts[1] or 0) - tonumber(amounts[2] or 0))
end

local function given(queue, tenant)
  return tonumber(redis.call('ZSCORE', key('lines', queue), tenant)
    or redis.call('HGET', key('given', queue), tenant) or 0)
end

local function give(queue, tenant, amount_ms)
  if redis.call('ZSCORE', key('lines', queue), tenant) then
    redis.call('ZINCRBY', key('lines', queue), amount_ms, tenant)
  else
    redis.call('HINCRBY', key('given', queue), tenant, amount_ms)
  end
end

-- Whose line is empty leaves `lines`; what was given is remembered.
local function close_line(queue, tenant)
  if redis.call('EXISTS', key('waiting', queue, tenant)) == 1 then return end
  local had = redis.call('ZSCORE', key('lines', queue), tenant)
  redis.call('ZREM', key('lines', queue), tenant)
  redis.call('HDEL', key('waits', queue), tenant)
  if had then redis.call('HSET', key('given', queue), tenant, had) end
end

-- Who comes, or comes back, starts where the last one was taken: nobody saves up turns.
local function open_line(queue, tenant)
  if redis.call('ZSCORE', key('lines', queue), tenant) then return end
  local level = tonumber(redis.call('GET', key('level', queue)) or 0)
  redis.call('ZADD', key('lines', queue), math.max(given(queue, tenant), level), tenant)
  redis.call('HDEL', key('given', queue), tenant)
end

-- Nobody waits and nobody works: all start anew.
local function forget_given(queue)
  if redis.call('EXISTS', key('lines', queue), key('busy', queue)) == 0 then
    redis.call('DEL', key('given', queue), key('level', queue))
  end
end

-- Deliveries stand in a line for each receiver that a tenant named, everything else in its tenant's: who never answers
-- holds up nobody else. In what is below, that name stands for the tenant.
local function line_of(id, step)
  return redis.call('HGET', key('step', id, step), 'line') or redis.call('HGET', key('job', id), 'tenant')
end

-- What the last attempt showed of a receiver: 'good', 'bad', or 'new' while nothing is known.
local function standing(line)
  return redis.call('GET', key('standing', line)) or 'new'
end

-- The deliveries under way are counted by receiver, and by tenant and standing.
local function depart(id, step, line)
  local class = string.match(line, '^(.*)|') .. '|' .. standing(line)
  redis.call('HSET', key('step', id, step), 'class', class)
  redis.call('HINCRBY', prefix .. 'flights', line, 1)
  redis.call('HINCRBY', prefix .. 'flights', class, 1)
end

-- There is room again: for the receiver's next, and for one of those that its tenant's others kept aside.
local function arrive(id, step, queue, line)
  local class = redis.call('HGET', key('step', id, step), 'class')
  redis.call('HDEL', key('step', id, step), 'class')
  for _, name in ipairs({line, class}) do
    if redis.call('HINCRBY', prefix .. 'flights', name, -1) <= 0 then redis.call('HDEL', prefix .. 'flights', name) end
  end
  local aside
  repeat
    aside = redis.call('SPOP', key('aside', class))
  until not aside or redis.call('EXISTS', key('waiting', queue, aside)) == 1
  for _, next in ipairs({line, aside or line}) do
    if redis.call('EXISTS', key('waiting', queue, next)) == 1 then open_line(queue, next) end
  end
end

local function line_up(id, step, queue)
  local tenant = line_of(id, step)
  open_line(queue, tenant)
  redis.call('ZADD', key('waiting', queue, tenant), place(id, step), ref(id, step))
  redis.call('HINCRBY', key('waits', queue), tenant, left_ms(id, step))
  redis.call('HINCRBY', prefix .. 'lengths', queue, 1)
  -- A hint that was lost is no new beginning.
  redis.call('HSETNX', key('step', id, step), 'since', now())
end

-- Takes the step out of its line, if it stands there.
local function leave_line(id, step, queue)
  local tenant = line_of(id, step)
  if redis.call('ZREM', key('waiting', queue, tenant), ref(id, step)) == 0 then return false end
  redis.call('HINCRBY', key('waits', queue), tenant, -left_ms(id, step))
  redis.call('HINCRBY', prefix .. 'lengths', queue, -1)
  return true
end

local function no_longer_busy(id, step, queue)
  if redis.call('ZREM', key('busy', queue), ref(id, step)) == 0 then return false end
  if redis.call('HEXISTS', key('step', id, step), 'class') == 1 then arrive(id, step, queue, line_of(id, step)) end
  return true
end

-- From its line to those who work: its tenant has been given what is left of it.
local function set_out(id, step, queue, until_ms)
  local tenant = line_of(id, step)
  redis.call('ZREM', key('later', queue), ref(id, step))
  local waited = leave_line(id, step, queue)
  if redis.call('ZADD', key('busy', queue), until_ms, ref(id, step)) == 1 then
    local level = math.max(given(queue, tenant), tonumber(redis.call('GET', key('level', queue)) or 0))
    redis.call('SET', key('level', queue), level)
    give(queue, tenant, left_ms(id, step))
    if redis.call('HEXISTS', key('step', id, step), 'line') == 1 then depart(id, step, tenant) end
  end
  if waited then close_line(queue, tenant) end
end

-- Back from those who work: what is left of it was not given after all.
local function come_back(id, step, queue)
  if no_longer_busy(id, step, queue) then give(queue, line_of(id, step), -left_ms(id, step)) end
end

local function come_back_to_line(id, step, queue, delay_ms)
  come_back(id, step, queue)
  redis.call('HSET', key('step', id, step), 'state', 'waiting')
  redis.call('HDEL', key('step', id, step), 'lapses')
  if tonumber(delay_ms) > 0 then
    redis.call('ZADD', key('later', queue), now() + tonumber(delay_ms), ref(id, step))
  else
    line_up(id, step, queue)
  end
end

-- By an operator's word nothing more is given out, of this queue or of all.
local function is_paused(queue)
  local paused = prefix .. 'paused'
  return redis.call('SISMEMBER', paused, queue) == 1 or redis.call('SISMEMBER', paused, '*') == 1
end

-- Takes the step out of its queue for good.
local function unqueue(id, step)
  local queue = redis.call('HGET', key('step', id, step), 'queue')
  if not queue then return end
  redis.call('ZREM', key('later', queue), ref(id, step))
  no_longer_busy(id, step, queue)
  if leave_line(id, step, queue) then close_line(queue, line_of(id, step)) end
  forget_given(queue)
end

-- Who a delivery goes to: the tenant and what it named, as the line does (a server) and as it is disabled (a URL).
local function address(id, step)
  local record = redis.call('HMGET', key('job', id), 'tenant', 'options')
  local url = cjson.decode(record[2] or '{}').webhook_url
  if type(url) ~= 'string' then return end
  local server = string.lower(string.match(url, '^%a+://([^/?#]*)') or url)
  redis.call('HSET', key('step', id, step), 'line', record[1] .. '|' .. redis.sha1hex(server),
    'receiver', record[1] .. '|' .. redis.sha1hex(url))
end

-- A new step waits in its queue. Offered twice, it stays what it is.
local function offer(id, step, queue, body, audio_ms)
  local step_key = key('step', id, step)
  if redis.call('EXISTS', step_key) == 1 then return false end
  redis.call('HSET', step_key, 'state', 'waiting', 'queue', queue, 'body', body, 'attempt', 0, 'claims', 0,
    'audio_ms', audio_ms)
  redis.call('SADD', key('steps', id), step)
  redis.call('SADD', prefix .. 'queues', queue)
  if is_delivery(step) then address(id, step) end
  line_up(id, step, queue)
  return true
end

-- The fence: nil when `attempt` still holds the step, else the word its late worker is refused with.
local function refused(id, step, attempt)
  local status = redis.call('HGET', key('job', id), 'status')
  if not status then return 'gone' end
  if terminal(status) and not is_delivery(step) then return 'ended' end
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

-- What each API key takes: its open jobs with the audio they owe, its recordings with their bytes, in a hash each; the sums
-- are in `usage`. An entry and its share of the sum change in one act, and a job has one entry, so that nothing is counted
-- twice or given back twice. Without an amount the entry goes.
local function count_for(key_id, kind, id, amount)
  if not key_id or key_id == '' then return end
  local before = tonumber(redis.call('HGET', key(kind, key_id), id) or 0)
  if amount then
    redis.call('HSET', key(kind, key_id), id, amount)
  else
    redis.call('HDEL', key(kind, key_id), id)
  end
  local more = (amount or 0) - before
  if more ~= 0 then redis.call('HINCRBY', key('usage', key_id), kind, more) end
end

local function count_recording(id, bytes)
  count_for(redis.call('HGET', key('job', id), 'key_id'), 'stored', id, bytes)
end

-- What the service still owes: audio of jobs that have not ended, by model; and of those nobody has begun.
local function owe(id, amount_ms)
  local record = redis.call('HMGET', key('job', id), 'owed_ms', 'model_name', 'key_id')
  local owed_ms = math.max(0, math.floor(amount_ms))
  local more = owed_ms - tonumber(record[1] or 0)
  redis.call('HSET', key('job', id), 'owed_ms', owed_ms)
  count_for(record[3], 'open', id, owed_ms)
  if more ~= 0 then redis.call('HINCRBY', prefix .. 'backlog', record[2] or '', more) end
end

local function begin_owed(id)
  local record = redis.call('HMGET', key('job', id), 'fresh_ms', 'model_name')
  if not record[1] then return end
  redis.call('HDEL', key('job', id), 'fresh_ms')
  redis.call('HINCRBY', prefix .. 'fresh', record[2] or '', 0 - tonumber(record[1]))
end

local function settle_owed(id)
  begin_owed(id)
  owe(id, 0)
  count_for(redis.call('HGET', key('job', id), 'key_id'), 'open', id, nil)
end

-- The last part done and all parts known: the file can be assembled.
local function offer_finish_when_whole(id)
  local counts = redis.call('HMGET', key('job', id), 'parts', 'parts_done', 'prepared')
  if counts[3] == '1' and tonumber(counts[1] or 0) == tonumber(counts[2] or 0) then
    redis.call('HSET', key('job', id), 'stage', 'finishing')
    offer(id, 'finish', 'prepare', '{}', 0)
  end
end

local function set_fields(id, json)
  for name, value in pairs(cjson.decode(json)) do
    redis.call('HSET', key('job', id), name, value)
  end
end

-- How many jobs have ended, and how; for those who look on.
local function count_end(id, status, fields)
  local failure = cjson.decode(fields).failure
  local code = failure and cjson.decode(failure).code or ''
  local model = redis.call('HGET', key('job', id), 'model_name') or ''
  redis.call('HINCRBY', prefix .. 'ended', table.concat({status, code, model}, '|'), 1)
end

-- Whatever else is known of an ended job is to be written beside its recording: see `saved`.
local function unsaved(id)
  redis.call('ZADD', prefix .. 'unsaved', now(), id)
end

-- The fleet: when each worker falls silent is in `fleet`, the slots it is counted with in `counted`, their sums by queue
-- in `slots`: what a dispatch needs to know of a thousand workers is one small hash.

-- Tells whether anything changed.
local function count_slots(name, slots)
  local before = redis.call('HGET', prefix .. 'counted', name) or '{}'
  if before == slots then return false end
  local function count(text, sign)
    for queue, amount in pairs(cjson.decode(text)) do
      if redis.call('HINCRBY', prefix .. 'slots', queue, sign * amount) == 0 then
        redis.call('HDEL', prefix .. 'slots', queue)
      end
    end
  end
  count(before, -1)
  count(slots, 1)
  redis.call('HSET', prefix .. 'counted', name, slots)
  return true
end

local function forget_worker(name)
  count_slots(name, '{}')
  redis.call('HDEL', prefix .. 'counted', name)
  redis.call('ZREM', prefix .. 'fleet', name)
  redis.call('DEL', key('worker', name))
end

local function forget_silent()
  for _, name in ipairs(redis.call('ZRANGEBYSCORE', prefix .. 'fleet', '-inf', now(), 'LIMIT', 0, 1000)) do
    forget_worker(name)
  end
end

-- Receivers: what is known of a tenant's URL while it fails. `receivers` names them by when that began.

local DAY_MS = 86400000

local MONTHS_MS = 90 * DAY_MS

local function forget_receiver(name)
  redis.call('DEL', key('receiver', name))
  redis.call('ZREM', prefix .. 'receivers', name)
end

local function describe_receiver(id, name, ...)
  local record = redis.call('HMGET', key('job', id), 'tenant', 'options')
  redis.call('HSET', key('receiver', name), 'tenant', record[1], 'url', cjson.decode(record[2]).webhook_url, ...)
  redis.call('PEXPIRE', key('receiver', name), MONTHS_MS)
end

local function disable_receiver(id, name, reason)
  redis.call('ZADD', prefix .. 'receivers', 'NX', now(), name)
  describe_receiver(id, name, 'disabled_at', now(), 'reason', reason)
end

-- Tells whether it is enough: it has only failed for so long. A day without an attempt, and it begins anew.
local function count_failure(id, name, disable_ms)
  local had = redis.call('HMGET', key('receiver', name), 'failing_since', 'failed_at', 'disabled_at')
  local at = now()
  local since = at
  if had[1] and at - tonumber(had[2]) <= DAY_MS then since = tonumber(had[1]) end
  redis.call('ZADD', prefix .. 'receivers', since, name)
  describe_receiver(id, name, 'failing_since', since, 'failed_at', at)
  local is_enough = at - since >= tonumber(disable_ms)
  if is_enough and not had[3] then disable_receiver(id, name, 'failing') end
  return is_enough or had[3] ~= false
end

-- Answers slower than this are no good sign: its deliveries wait for one another, not others for them.
local SLOW_S = 2

-- What an attempt showed. Tells whether the receiver is disabled from now on.
local function note_attempt(id, step, outcome, entry, disable_ms)
  local names = redis.call('HMGET', key('step', id, step), 'line', 'receiver')
  if not names[1] then return false end
  local is_good = outcome == 'delivered' and cjson.decode(entry).duration_s <= SLOW_S
  redis.call('SET', key('standing', names[1]), is_good and 'good' or 'bad', 'PX', 7 * DAY_MS)
  if outcome == 'delivered' then
    forget_receiver(names[2])
  elseif outcome == 'gone' then
    disable_receiver(id, names[2], 'gone')
    return true
  else
    return count_failure(id, names[2], disable_ms)
  end
  return false
end

local function log_delivery(id, entry)
  redis.call('RPUSH', key('deliveries', id), entry)
  redis.call('LTRIM', key('deliveries', id), -20, -1)
end

local function end_delivery(id, step, status)
  redis.call('HSET', key('job', id), 'webhook_status', status)
  finish_step(id, step)
  if redis.call('HGET', key('job', id), 'status') ~= 'expired' then unsaved(id) end
end
