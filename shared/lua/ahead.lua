-- ARGV: id
-- What is to be done before a job that waits to be begun: files, audio ms; and what the job itself owes. Others who wait
-- get their fair share before it; of what they wait for, the mean length stands for each.
local id = ARGV[1]
local record = redis.call('HMGET', key('job', id), 'status', 'tenant', 'model_name', 'owed_ms')
local tenant, model = record[2], record[3] or ''
local own_ms = tonumber(record[4] or 0)
local owed_ms = tonumber(redis.call('HGET', prefix .. 'backlog', model) or 0)
if record[1] ~= 'queued' then return {0, math.max(0, owed_ms - own_ms), own_ms} end
local begun_ms = owed_ms - tonumber(redis.call('HGET', prefix .. 'fresh', model) or 0)
local first = redis.call('EXISTS', key('step', id, 'fetch')) == 1 and 'fetch' or 'prepare'
local queue = redis.call('HGET', key('step', id, first), 'queue')
local rank = redis.call('ZRANK', key('waiting', queue, tenant), ref(id, first))
if not rank then return {0, math.max(0, begun_ms), own_ms} end

local function waits(of)
  return redis.call('ZCARD', key('waiting', queue, of)), tonumber(redis.call('HGET', key('waits', queue), of) or 0)
end

local count, audio_ms = waits(tenant)
local before_ms = audio_ms * rank / count
local files, ahead_ms = rank, before_ms
local turn_ms = given(queue, tenant) + before_ms
for _, other in ipairs(redis.call('ZRANGEBYSCORE', key('lines', queue), '-inf', turn_ms, 'LIMIT', 0, 500)) do
  if other ~= tenant then
    local theirs, their_ms = waits(other)
    -- The one that is begun last may reach beyond our turn.
    local share_ms = math.min(their_ms, turn_ms - given(queue, other) + their_ms / theirs)
    files = files + math.min(theirs, math.ceil(theirs * share_ms / their_ms))
    ahead_ms = ahead_ms + share_ms
  end
end
return {files, math.floor(math.min(begun_ms + ahead_ms, math.max(0, owed_ms - own_ms))), own_ms}
