-- ARGV: id, mark: what was read under this mark lies beside the recording now; newer news stay to be saved
local id, mark = ARGV[1], ARGV[2]
if redis.call('ZSCORE', prefix .. 'unsaved', id) == mark then redis.call('ZREM', prefix .. 'unsaved', id) end
return 'ok'
