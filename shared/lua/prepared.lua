-- ARGV: id, attempt, fields (JSON), parts: the whole file is cut, so many parts were offered
local id, attempt, fields, parts = unpack(ARGV)
local word = refused(id, 'prepare', attempt)
if word then return word end
-- A server that was killed may have forgotten what it acknowledged last.
if tonumber(redis.call('HGET', key('job', id), 'parts')) ~= tonumber(parts) then return 'incomplete' end
set_fields(id, fields)
redis.call('HSET', key('job', id), 'prepared', '1')
redis.call('HSETNX', key('job', id), 'total_s', 0)
local amounts = redis.call('HMGET', key('job', id), 'total_s', 'done_s')
owe(id, (tonumber(amounts[1]) - tonumber(amounts[2])) * 1000)
finish_step(id, 'prepare')
offer_finish_when_whole(id)
return 'ok'
