-- ARGV: id, step, attempt, fields (JSON), bytes of the recording, queue, audio ms (as far as its size tells)
-- The recording is here: it can be decoded, and counts as its key's.
local id, step, attempt, fields, bytes, queue, audio_ms = unpack(ARGV)
local word = refused(id, step, attempt)
if word then return word end
set_fields(id, fields)
count_recording(id, tonumber(bytes))
redis.call('HSET', key('job', id), 'stage', 'decoding')
redis.call('HDEL', key('job', id), 'fetched_bytes', 'fetch_bytes')
owe(id, tonumber(audio_ms))
finish_step(id, step)
offer(id, 'prepare', queue, '{}', audio_ms)
return 'ok'
