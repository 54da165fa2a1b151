-- ARGV: id, step, attempt, lease ms, window index, result (JSON), seconds, inference seconds
-- Keeps a finished window. A window kept before stays as it was and counts once.
local id, step, attempt, lease_ms, index, result, seconds, inference_s = unpack(ARGV)
local word = refused(id, step, attempt)
if word then return word end
renew(id, step, lease_ms)
if redis.call('HSETNX', key('windows', id, step), index, result) == 1 then
  local done = redis.call('HINCRBYFLOAT', key('job', id), 'done_s', seconds)
  redis.call('HINCRBYFLOAT', key('job', id), 'inference_s', inference_s)
  local total = redis.call('HGET', key('job', id), 'total_s')
  emit(id, 'window', result)
  emit(id, 'progress', cjson.encode({done_s = tonumber(done), total_s = tonumber(total or 0)}))
end
return 'ok'
