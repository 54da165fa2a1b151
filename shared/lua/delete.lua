-- ARGV: id: removes every trace of the job from Redis
local id = ARGV[1]
local tenant = redis.call('HGET', key('job', id), 'tenant')
if not tenant then return 0 end
settle_owed(id)
for _, step in ipairs(redis.call('SMEMBERS', key('steps', id))) do
  unqueue(id, step)
  redis.call('DEL', key('step', id, step), key('windows', id, step))
end
redis.call('ZREM', key('jobs', tenant), id)
for _, set in ipairs({'expiry', 'deadlines', 'unsaved'}) do redis.call('ZREM', prefix .. set, id) end
redis.call('DEL', key('job', id), key('steps', id), key('events', id), key('deliveries', id))
return 1
