-- ARGV: id, tenant, queue of the first step, fields (JSON), idempotency key or '', request hash, its TTL ms
-- Record, index, first step and idempotency entry come to be together or not at all.
local id, tenant, queue, fields, idempotency, request_hash, ttl = unpack(ARGV)
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
local created = now()
set_fields(id, fields)
redis.call('HSET', key('job', id), 'id', id, 'tenant', tenant, 'status', 'queued', 'created_at', created,
  'attempt', 0, 'done_s', 0, 'parts', 0, 'parts_done', 0)
redis.call('ZADD', key('jobs', tenant), created, id)
if idempotency ~= '' then
  redis.call('HSET', idempotency_key, 'id', id, 'request_hash', request_hash)
  redis.call('PEXPIRE', idempotency_key, ttl)
end
offer(id, 'prepare', queue, '{}')
emit(id, 'state', '{"status":"queued"}')
return {'created', id}
