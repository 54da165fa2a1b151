-- ARGV: id, step, attempt, log entry (JSON), outcome (delivered, failed, gone, disabled), ms of failures that disable
-- Ends a delivery: it arrived, or nobody will try again. `disabled` was no attempt: its receiver is not asked any more.
local id, step, attempt, entry, outcome, disable_ms = unpack(ARGV)
local word = refused(id, step, attempt)
if word then return word end
log_delivery(id, entry)
if outcome ~= 'disabled' then note_attempt(id, step, outcome, entry, disable_ms) end
end_delivery(id, step, outcome == 'gone' and 'failed' or outcome)
return 'ok'
