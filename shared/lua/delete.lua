-- ARGV: id, '1' to remove nothing but what is due in `expiry`: removes every trace of the job from Redis
local id, due_only = ARGV[1], ARGV[2]
local tenant = redis.call('HGET', key('job', id), 'tenant')
if not tenant then return 0 end
if due_only == '1' and tonumber(redis.call('ZSCORE', prefix .. 'expiry', id) or now()) >= now() then return 0 end
settle_owed(id)
count_recording(id, nil)
for _, step in ipairs(redis.call('SMEMBERS', key('steps', id))) do
  unqueue(id, step)
  redis.call('DEL', key('step', id, step), key('windows', id, step))
end
redis.call('ZREM', key('jobs', tenant), id)
for _, set in ipairs({'expiry', 'deadlines', 'unsaved'}) do redis.call('ZREM', prefix .. set, id) end
redis.call('DEL', key('job', id), key('steps', id), key('events', id), key('deliveries', id))
return 1
