-- API keys: `apikey:<id>` is a key's record, `apikeys` lists the ids. `key`, `now_ms` and `audited` stand in front of this
-- text.

local MESH = 'mesh'

-- make: id tenant line kept_ms field value ... Writes a key's record, once; 0: it is kept for good. Returns 1.
local function make(keys, a)
  local place = key(MESH, 'apikey', a[1])
  if redis.call('EXISTS', place) == 1 then return 1 end  -- a repetition after a lost reply
  audited(MESH, a[2], 'key_created', a[1], a[3])
  redis.call('HSET', place, unpack(a, 5))
  if a[4] ~= '0' then redis.call('PEXPIRE', place, a[4]) end
  redis.call('SADD', key(MESH, 'apikeys'), a[1])
  return 1
end

-- revoke: id tenant line kept_ms. Revokes a key, once. Returns whether there is one.
local function revoke(keys, a)
  local place = key(MESH, 'apikey', a[1])
  if redis.call('HEXISTS', place, 'hash') == 0 then return 0 end
  if redis.call('HEXISTS', place, 'revoked') == 1 then return 1 end
  audited(MESH, a[2], 'key_revoked', a[1], a[3])
  redis.call('HSET', place, 'revoked', now_ms())
  redis.call('PEXPIRE', place, a[4])
  return 1
end

redis.register_function('make_VERSION', make)
redis.register_function({function_name = 'revoke_VERSION', callback = revoke, flags = {'allow-oom'}})
