-- ARGV: id, step, attempt, lease ms
local id, step, attempt, lease_ms = unpack(ARGV)
local word = refused(id, step, attempt)
if word then return word end
renew(id, step, lease_ms)
return 'ok'
