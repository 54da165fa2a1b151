-- ARGV: id, part step, attempt: the part's results are safe in the blob store
local id, step, attempt = unpack(ARGV)
local word = refused(id, step, attempt)
if word then return word end
finish_step(id, step)
redis.call('DEL', key('windows', id, step))
redis.call('HINCRBY', key('job', id), 'parts_done', 1)
offer_finish_when_whole(id)
return 'ok'
