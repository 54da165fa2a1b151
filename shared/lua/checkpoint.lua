-- ARGV: id, step, attempt, lease ms, window index, result (JSON), seconds, inference seconds
-- Keeps a finished window. A window kept before stays as it was and counts once. Answers 'yield' when the part should
-- make room for somebody else.
local id, step, attempt, lease_ms, index, result, seconds, inference_s = unpack(ARGV)

-- A file holds many slots while others wait for their first. The lowest open part of a file is never the one to go:
-- among so many parts as are done, and one, at least one is open. One slot of a queue is freed at a time.
local function should_yield()
  local record = redis.call('HMGET', key('job', id), 'parts_done', 'tenant')
  if part_number(step) <= tonumber(record[1] or 0) then return false end
  local queue = redis.call('HGET', key('step', id, step), 'queue')
  if is_paused(queue) then return false end
  local next_tenant = redis.call('ZRANGE', key('lines', queue), 0, 0)[1]
  if not next_tenant then return false end
  local head = redis.call('ZRANGE', key('waiting', queue, next_tenant), 0, 0)[1]
  local next_id, next_step = split(head)
  if next_id == id then return false end
  if next_tenant == record[2] then
    if place(next_id, next_step) >= place(id, step) then return false end
  elseif given(queue, next_tenant) >= given(queue, record[2]) - left_ms(id, step) then
    return false
  end
  return redis.call('SET', key('yielding', queue), ref(id, step), 'NX', 'PX', 2000)
end

local word = refused(id, step, attempt)
if word then return word end
renew(id, step, lease_ms)
if redis.call('HSETNX', key('windows', id, step), index, result) == 1 then
  local audio_ms = math.floor(seconds * 1000 + 0.5)
  local done = redis.call('HINCRBYFLOAT', key('job', id), 'done_s', seconds)
  redis.call('HINCRBYFLOAT', key('job', id), 'inference_s', inference_s)
  redis.call('HINCRBY', key('step', id, step), 'done_ms', audio_ms)
  owe(id, tonumber(redis.call('HGET', key('job', id), 'owed_ms') or 0) - audio_ms)
  -- Whoever gets on is no poison, however many workers died on the way: the count begins anew.
  redis.call('HSET', key('step', id, step), 'claims', 1)
  local total = redis.call('HGET', key('job', id), 'total_s')
  emit(id, 'window', result)
  emit(id, 'progress', cjson.encode({done_s = tonumber(done), total_s = tonumber(total or 0)}))
end
if should_yield() then return 'yield' end
return 'ok'
