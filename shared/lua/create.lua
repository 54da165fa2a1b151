-- ARGV: id, tenant, first step, its queue, fields (JSON), audio ms (as far as known), idempotency key or '',
--       request hash, its TTL ms, most audio ms the service may owe (0: it was accepted before, take it), bytes of the
--       recording, id of the API key or '', most jobs, audio ms and bytes of that key (0: no bound)
-- Record, index, first step and idempotency entry come to be together or not at all.
local id, tenant, step, queue, fields, audio_ms, idempotency, request_hash, ttl, most_ms,
  bytes, key_id, most_jobs, most_audio_ms, most_bytes = unpack(ARGV)

-- A part of the memory is for finishing what was accepted: a store that is full to the brim could end nothing.
local function is_full()
  local memory = redis.call('INFO', 'memory')
  local most = tonumber(string.match(memory, '\nmaxmemory:(%d+)') or 0)
  return most > 0 and tonumber(string.match(memory, 'used_memory:(%d+)')) > most * 0.9
end

local function owed()
  local sum = 0
  for _, amount in ipairs(redis.call('HVALS', prefix .. 'backlog')) do sum = sum + tonumber(amount) end
  return sum
end

-- What the key has too much of, if it takes this one more; 'never' where this one alone is too much for it.
local function beyond()
  local function is_never(more, most) return tonumber(most) > 0 and tonumber(more) > tonumber(most) end
  if is_never(audio_ms, most_audio_ms) then return 'never_audio' end
  if is_never(bytes, most_bytes) then return 'never_stored' end
  local held = redis.call('HMGET', key('usage', key_id), 'open', 'stored')
  local function is_too_much(has, more, most)
    return tonumber(most) > 0 and tonumber(has or 0) + tonumber(more) > tonumber(most)
  end
  if is_too_much(redis.call('HLEN', key('open', key_id)), 1, most_jobs) then return 'jobs' end
  if is_too_much(held[1], audio_ms, most_audio_ms) then return 'audio' end
  if is_too_much(held[2], bytes, most_bytes) then return 'stored' end
end

-- The client may send a script again when only its answer was lost; the job may be well on its way by then.
if redis.call('EXISTS', key('job', id)) == 1 then return {'created', id} end
local idempotency_key = key('idempotency', tenant, idempotency)
if idempotency ~= '' then
  local known = redis.call('HMGET', idempotency_key, 'id', 'request_hash')
  -- A job that was deleted since is forgotten, its key with it.
  if known[1] and redis.call('EXISTS', key('job', known[1])) == 1 then
    if known[2] ~= request_hash then return {'mismatch', known[1]} end
    return {'known', known[1]}
  end
end
if tonumber(most_ms) > 0 then
  if owed() >= tonumber(most_ms) then return {'backlog', id} end
  if is_full() then return {'full', id} end
  local too_much = key_id ~= '' and beyond()
  if too_much then return {too_much, id} end
end
set_fields(id, fields)
-- One that is made again came when it came.
local created = tonumber(redis.call('HGET', key('job', id), 'created_at') or now())
redis.call('HSET', key('job', id), 'id', id, 'schema', SCHEMA, 'tenant', tenant, 'status', 'queued',
  'created_at', created, 'attempt', 0, 'done_s', 0, 'parts', 0, 'parts_done', 0, 'fresh_ms', audio_ms)
redis.call('SADD', prefix .. 'tenants', tenant)
redis.call('ZADD', key('jobs', tenant), created, id)
if idempotency ~= '' then
  redis.call('HSET', idempotency_key, 'id', id, 'request_hash', request_hash)
  redis.call('PEXPIRE', idempotency_key, ttl)
end
local deadline_ms = redis.call('HGET', key('job', id), 'deadline_ms')
if deadline_ms then redis.call('ZADD', prefix .. 'deadlines', created + tonumber(deadline_ms), id) end
redis.call('HINCRBY', prefix .. 'fresh', redis.call('HGET', key('job', id), 'model_name') or '', audio_ms)
if key_id ~= '' then
  redis.call('HSET', key('job', id), 'key_id', key_id)
  -- For a recording that is still to be fetched, and has no size yet.
  if tonumber(most_bytes) > 0 then redis.call('HSET', key('job', id), 'most_stored', most_bytes) end
  redis.call('SADD', prefix .. 'holders', key_id)
  count_recording(id, tonumber(bytes))
end
owe(id, tonumber(audio_ms))
offer(id, step, queue, '{}', audio_ms)
emit(id, 'state', '{"status":"queued"}')
return {'created', id}
