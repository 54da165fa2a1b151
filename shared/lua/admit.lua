-- ARGV: id of an API key or '', digest of the secret that came with it, requests a minute (0: no bound) unless the key has
--       its own, ms that its last use may be out of date
-- Finds a key and counts a request of its owner. Answers whether there are keys at all, whether this Redis knows them all
-- since it was started, instant ms, requests left or -1 (refused) or -2 (not counted), ms until one more is free, ms until
-- all are, and the key's fields. Whether the key opens is the caller's to say; here it is only looked who may use up its
-- requests, which must not be everybody who knows its id.
local id, digest, most, stale_ms = ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])
local at = now()
local fields = id ~= '' and redis.call('HGETALL', owned('key', id)) or {}
local some = redis.call('EXISTS', owned('all'))
local run_id = string.match(redis.call('INFO', 'server'), 'run_id:(%w+)')
local is_whole = redis.call('GET', owned('whole')) == run_id and 1 or 0
local record = {}
for index = 1, #fields, 2 do record[fields[index]] = fields[index + 1] end

local function is_owner()
  if record.digest == digest then return true end
  return record.old_digest == digest and at < tonumber(record.old_until_ms)
end

if not record.digest or not is_owner() then return {some, is_whole, at, -2, 0, 0, fields} end
most = cjson.decode(record.limits).requests_per_min or most
local taken = {-2, 0, 0}
if most > 0 then taken = take(key('spent', id), most) end
if at - tonumber(redis.call('HGET', prefix .. 'used', id) or 0) >= stale_ms then
  redis.call('HSET', prefix .. 'used', id, at)
end
return {some, is_whole, at, taken[1], taken[2], taken[3], fields}
