-- ARGV: worker, state (JSON), alive ms, slots by queue (JSON; none of one that is stopping), speeds by model (JSON),
--       pause ms, ms that the word to drain outlives its worker
-- A worker lives. Answers whether it is to look for waiting work (it came up, it holds more or less than before, or
-- nobody was asked to look for a pause) and whether it is to drain.
local name, state, alive_ms, slots, speeds, pause_ms, drained_ms = unpack(ARGV)
redis.call('ZADD', prefix .. 'fleet', now() + tonumber(alive_ms), name)
redis.call('SET', key('worker', name), state, 'PX', alive_ms)
for model, speed in pairs(cjson.decode(speeds)) do
  redis.call('HSET', prefix .. 'speeds', model, speed)
end
local is_other = count_slots(name, slots)
local is_time = redis.call('SET', prefix .. 'looked', name, 'NX', 'PX', pause_ms)
local drains = redis.call('GETEX', key('drain', name), 'PX', drained_ms)
return {(is_other or is_time) and 1 or 0, drains and 1 or 0}
