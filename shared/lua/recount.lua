-- ARGV: id of an API key, 'open' or 'stored', ids of jobs that are counted there
-- What those who know nothing of keys (another version of the service) left behind is put right, and a sum of few entries
-- is made anew. Answers how much was wrong.
local key_id, kind = ARGV[1], ARGV[2]
local FEW = 5000
local wrong = 0

local function amount(id)
  local record = redis.call('HMGET', key('job', id), 'status', 'key_id', 'owed_ms')
  if record[2] ~= key_id or record[1] == 'expired' then return nil end
  if kind == 'open' then
    if terminal(record[1]) then return nil end
    return tonumber(record[3] or 0)
  end
  return tonumber(redis.call('HGET', key(kind, key_id), id))
end

for index = 3, #ARGV do
  local held = tonumber(redis.call('HGET', key(kind, key_id), ARGV[index]) or -1)
  local right = amount(ARGV[index])
  if held >= 0 and held ~= right then
    count_for(key_id, kind, ARGV[index], right)
    wrong = wrong + 1
  end
end
if redis.call('HLEN', key(kind, key_id)) <= FEW then
  local sum = 0
  for _, one in ipairs(redis.call('HVALS', key(kind, key_id))) do sum = sum + tonumber(one) end
  if sum ~= tonumber(redis.call('HGET', key('usage', key_id), kind) or 0) then
    redis.call('HSET', key('usage', key_id), kind, string.format('%.0f', sum))
    wrong = wrong + 1
  end
end
return wrong
