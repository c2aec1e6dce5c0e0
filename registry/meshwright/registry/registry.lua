-- The registry's functions: directory of instances, catalog of tools, ledger of tool outcomes.
-- `key` and `now_ms` stand in front of this text.

local MESH = 'mesh'
local KEPT_CHANGES = 10000

local function changed(agent_id)
  local revision = redis.call('INCR', key(MESH, 'revision'))
  redis.call('XADD', key(MESH, 'changes'), 'MAXLEN', '~', KEPT_CHANGES, '0-' .. revision, 'agent', agent_id)
  redis.call('SPUBLISH', key(MESH, 'wake'), revision)
  return revision
end

local function remove(instance_id)
  local agent_id = redis.call('HGET', key(MESH, 'instances', 'agents'), instance_id)
  redis.call('HDEL', key(MESH, 'instances'), instance_id)
  redis.call('HDEL', key(MESH, 'instances', 'agents'), instance_id)
  redis.call('ZREM', key(MESH, 'leases'), instance_id)
  if agent_id then changed(agent_id) end
  return agent_id and 1 or 0
end

-- announce: agent_id instance_id announcement lease_ms. Returns when the lease ends, in store ms.
local function announce(keys, a)
  local expires = now_ms() + tonumber(a[4])
  redis.call('ZADD', key(MESH, 'leases'), expires, a[2])
  if redis.call('HGET', key(MESH, 'instances'), a[2]) ~= a[3] then
    redis.call('HSET', key(MESH, 'instances'), a[2], a[3])
    redis.call('HSET', key(MESH, 'instances', 'agents'), a[2], a[1])
    changed(a[1])
  end
  return expires
end

-- withdraw: agent_id instance_id. Returns whether it was there.
local function withdraw(keys, a)
  if redis.call('HGET', key(MESH, 'instances', 'agents'), a[2]) ~= a[1] then return 0 end
  return remove(a[2])
end

-- expire: removes instances whose lease has ended; returns how many.
local function expire(keys, a)
  local silent = redis.call('ZRANGEBYSCORE', key(MESH, 'leases'), '-inf', now_ms())
  for _, instance_id in ipairs(silent) do remove(instance_id) end
  return #silent
end

-- register: name version tool digest endpoint. Returns 'stored' | 'known' | 'conflict'; a known contract moves its host.
local function register(keys, a)
  local known = redis.call('HGET', key(MESH, 'tool', a[1] .. ':digests'), a[2])
  if known and known ~= a[4] then return 'conflict' end
  if not known then
    redis.call('HSET', key(MESH, 'tool', a[1]), a[2], a[3])
    redis.call('HSET', key(MESH, 'tool', a[1] .. ':digests'), a[2], a[4])
    redis.call('SADD', key(MESH, 'tools'), a[1])
  end
  if redis.call('HGET', key(MESH, 'hosts', a[1]), a[2]) ~= a[5] then
    redis.call('HSET', key(MESH, 'hosts', a[1]), a[2], a[5])
    redis.call('INCR', key(MESH, 'revision', 'tools'))
  end
  return known and 'known' or 'stored'
end

-- begin: p ref call_key deadline_ms may_rerun fence kept_ms. One field of the task's ledger a call:
-- "open <deadline> <token>" or "done <outcome>". Returns {'run', token} | {'done', outcome} | {'open', deadline} |
-- {'unknown'} | {'fenced'}.
local function begin(keys, a)
  local p, ledger, now = a[1], key(a[1], 'ledger', a[2]), now_ms()
  if tonumber(redis.call('HGET', ledger, 'fence') or '0') > tonumber(a[6]) then return {'fenced'} end
  local entry = redis.call('HGET', ledger, a[3])
  if entry and string.sub(entry, 1, 5) == 'done ' then return {'done', string.sub(entry, 6)} end
  if entry then
    local deadline = tonumber(string.match(entry, '^open (%d+)'))
    if now < deadline + 1000 then return {'open', deadline} end
    if a[5] == '0' then return {'unknown'} end
  end
  local token = now .. '-' .. a[6]
  redis.call('HSET', ledger, a[3], 'open ' .. math.max(tonumber(a[4]), now) .. ' ' .. token, 'fence', a[6])
  redis.call('PEXPIRE', ledger, a[7])
  return {'run', token}
end

-- settle: p ref call_key outcome. The first outcome wins and is returned.
local function settle(keys, a)
  local ledger = key(a[1], 'ledger', a[2])
  local entry = redis.call('HGET', ledger, a[3])
  if entry and string.sub(entry, 1, 5) == 'done ' then return string.sub(entry, 6) end
  redis.call('HSET', ledger, a[3], 'done ' .. a[4])
  return a[4]
end

local function define(name, callback, flags)
  redis.register_function({function_name = name .. '_VERSION', callback = callback, flags = flags})
end

define('announce', announce)
define('withdraw', withdraw, {'allow-oom'})
define('expire', expire, {'allow-oom'})
define('register', register)
define('begin', begin)
define('settle', settle, {'allow-oom'})
