-- ARGV: id: removes every trace of the job from Redis
local id = ARGV[1]
local tenant = redis.call('HGET', key('job', id), 'tenant')
if not tenant then return 0 end
for _, step in ipairs(redis.call('SMEMBERS', key('steps', id))) do
  unqueue(id, step)
  redis.call('DEL', key('step', id, step), key('windows', id, step))
end
redis.call('ZREM', key('jobs', tenant), id)
redis.call('ZREM', prefix .. 'expiry', id)
redis.call('DEL', key('job', id), key('steps', id), key('events', id), key('deliveries', id))
return 1
