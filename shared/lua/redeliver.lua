-- ARGV: id, step, attempt, log entry (JSON), delay ms, ms of failures that disable
-- The receiver did not take it: try later, or never more when it has only failed for so long.
local id, step, attempt, entry, delay_ms, disable_ms = unpack(ARGV)
local word = refused(id, step, attempt)
if word then return word end
log_delivery(id, entry)
if note_attempt(id, step, 'failed', entry, disable_ms) then
  end_delivery(id, step, 'failed')
  return 'disabled'
end
redis.call('HSET', key('job', id), 'webhook_status', 'retrying')
redis.call('HINCRBY', key('step', id, step), 'tries', 1)
come_back_to_line(id, step, 'deliver', delay_ms)
return 'ok'
