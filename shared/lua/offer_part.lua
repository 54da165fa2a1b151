-- ARGV: id, attempt of `prepare`, lease ms, part step, queue, body (JSON), seconds of audio to transcribe
local id, attempt, lease_ms, part, queue, body, seconds = unpack(ARGV)
local word = refused(id, 'prepare', attempt)
if word then return word end
renew(id, 'prepare', lease_ms)
if offer(id, part, queue, body, math.floor(seconds * 1000 + 0.5)) then
  redis.call('HINCRBY', key('job', id), 'parts', 1)
  local total = tonumber(redis.call('HINCRBYFLOAT', key('job', id), 'total_s', seconds))
  redis.call('HSET', key('job', id), 'stage', 'transcribing')
  redis.call('HSET', key('step', id, 'prepare'), 'claims', 1)
  local record = redis.call('HMGET', key('job', id), 'owed_ms', 'done_s')
  owe(id, math.max(tonumber(record[1] or 0), (total - tonumber(record[2])) * 1000))
end
return 'ok'
