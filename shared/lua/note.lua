-- ARGV: id, step, attempt, fields (JSON)
local id, step, attempt, fields = unpack(ARGV)
local word = refused(id, step, attempt)
if word then return word end
set_fields(id, fields)
return 'ok'
