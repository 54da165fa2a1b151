-- ARGV: id, step, worker, lease ms, most claims, most claims beside others (0: no bound)
-- Takes a waiting or lapsed step. The attempt number is the fence all later calls are checked against.
local id, step, worker, lease_ms, most, most_beside = unpack(ARGV)
local step_key, job_key = key('step', id, step), key('job', id)
local record = redis.call('HMGET', job_key, 'status', 'schema', 'attempt')
local status = record[1]
local held = redis.call('HMGET', step_key, 'state', 'lapses', 'body', 'queue', 'since', 'claims')
if not status or not held[1] then return {'gone'} end
if tonumber(record[2] or 1) > SCHEMA then return {'newer'} end
if terminal(status) and not is_delivery(step) then
  finish_step(id, step)
  return {'ended'}
end
if held[1] == 'done' then return {'done'} end
if held[1] == 'leased' and now() < tonumber(held[2]) then return {'taken'} end
if tonumber(most_beside) > 0 and tonumber(held[6]) >= tonumber(most_beside) then return {'suspect'} end

local attempt = redis.call('HINCRBY', step_key, 'attempt', 1)
local claims = redis.call('HINCRBY', step_key, 'claims', 1)
redis.call('HSET', step_key, 'state', 'leased', 'worker', worker)
redis.call('HDEL', step_key, 'since')
local waited_ms = now() - tonumber(held[5] or now())
set_out(id, step, held[4], now())
renew(id, step, lease_ms)
if status == 'queued' then
  redis.call('HSET', job_key, 'status', 'running', 'started_at', now(), 'attempt', 1,
    'stage', step == 'fetch' and 'fetching' or 'decoding')
  begin_owed(id)
  emit(id, 'state', '{"status":"running"}')
elseif claims > tonumber(record[3]) and not terminal(status) then
  -- One dead worker may have held many steps of a job: that is one more attempt at it, not many.
  redis.call('HSET', job_key, 'attempt', claims)
end
local failures = redis.call('HGET', step_key, 'failures') or 0
local is_exhausted = tonumber(most) > 0 and claims > tonumber(most)
return {is_exhausted and 'exhausted' or 'claimed', attempt, claims, held[3], failures, waited_ms}
