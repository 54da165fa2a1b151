-- ARGV: id, attempt of `prepare`, lease ms, part step, queue, body (JSON), seconds of audio to transcribe
local id, attempt, lease_ms, part, queue, body, seconds = unpack(ARGV)
local word = refused(id, 'prepare', attempt)
if word then return word end
renew(id, 'prepare', lease_ms)
if offer(id, part, queue, body) then
  redis.call('HINCRBY', key('job', id), 'parts', 1)
  redis.call('HINCRBYFLOAT', key('job', id), 'total_s', seconds)
  redis.call('HSET', key('job', id), 'stage', 'transcribing')
end
return 'ok'
