-- Who runs what. A queue is an agent's, or "agent@version" where a task stays with a version. `ready` holds a queue's
-- tasks by the time at which they entered, moved by their rank; `line` the same for one tenant. `suspects` are tasks
-- whose last two workers were lost before they got anywhere: they run alone.

local RESUMED_FIRST_MS = 60000  -- children and resumed tasks overtake new roots that wait less than this
local SUSPICIOUS = 2  -- claims in a row that appended nothing
local ISOLATING_MS = 30000
local MOST_TENANTS = 100  -- that one claim looks at

local function line_of(queue, tenant)
  return queue .. '/' .. tenant
end

local function dequeue(p, queue, tenant, ref)
  redis.call('ZREM', key(p, 'ready', queue), ref)
  redis.call('ZREM', key(p, 'suspects', queue), ref)
  redis.call('ZREM', key(p, 'pinned'), ref)
  local line = key(p, 'line', line_of(queue, tenant))
  if redis.call('ZREM', line, ref) == 1 and redis.call('EXISTS', line) == 0 then
    redis.call('ZREM', key(p, 'tenants', queue), tenant)
    if redis.call('EXISTS', key(p, 'tenants', queue)) == 0 then redis.call('DEL', key(p, 'virtual', queue)) end
  end
end

-- Ends ownership, if there is one.
local function disown(p, ref)
  local facts = task(p, ref, 'state', 'agent', 'tenant')
  if facts[1] ~= 'RUNNING' then return end
  local running = key(p, 'running', facts[2])
  if redis.call('HINCRBY', running, facts[3], -1) <= 0 then redis.call('HDEL', running, facts[3]) end
  redis.call('HDEL', key(p, 'task', ref), 'owner', 'fence')
  redis.call('ZREM', key(p, 'leases'), ref)
end

-- A tenant that comes back begins where the others are: it has saved up nothing, and owes nothing.
local function join_line(p, queue, tenant)
  local tenants = key(p, 'tenants', queue)
  if redis.call('ZSCORE', tenants, tenant) then return end
  local least = redis.call('ZRANGE', tenants, 0, 0, 'WITHSCORES')[2] or '0'
  local own = redis.call('HGET', key(p, 'virtual', queue), tenant) or '0'
  redis.call('ZADD', tenants, math.max(tonumber(least), tonumber(own)), tenant)
end

local function enqueue(p, ref, now, is_first)
  local facts = task(p, ref, 'agent', 'queue', 'tenant', 'cancel', 'rank', 'barren')
  local queue, tenant = facts[2], facts[3]
  disown(p, ref)
  thaw(p, ref, now)
  redis.call('HSET', key(p, 'task', ref), 'state', 'PENDING', 'queued', now)
  redis.call('HDEL', key(p, 'task', ref), 'waiting', 'turn')
  local place = now + tonumber(facts[5] or '0') - (is_first and RESUMED_FIRST_MS or 0)
  if tonumber(facts[6] or '0') >= SUSPICIOUS then
    redis.call('ZADD', key(p, 'suspects', queue), place, ref)
  else
    redis.call('ZADD', key(p, 'ready', queue), place, ref)
    redis.call('ZADD', key(p, 'line', line_of(queue, tenant)), place, ref)
    join_line(p, queue, tenant)
  end
  if queue ~= facts[1] then redis.call('ZADD', key(p, 'pinned'), now, ref) end
  if facts[4] then redis.call('SADD', key(p, 'ending'), ref) end
  redis.call('SPUBLISH', key(p, 'wake', facts[1]), ref)
end

-- Makes `owner` own a task; `version`: the one that the task stays with from now on, or ''.
local function own(p, ref, owner, nonce, lease_ms, version, now)
  local record_key = key(p, 'task', ref)
  local facts = task(p, ref, 'agent', 'tenant')
  local fence = redis.call('HINCRBY', record_key, 'fences', 1) .. '-' .. nonce
  redis.call('HSET', record_key, 'state', 'RUNNING', 'owner', owner, 'fence', fence)
  redis.call('HSETNX', record_key, 'started', now)
  redis.call('HSETNX', record_key, 'attempt', 1)
  redis.call('HINCRBY', record_key, 'barren', 1)
  redis.call('HDEL', record_key, 'nudged')
  if version ~= '' then redis.call('HSET', record_key, 'queue', facts[1] .. '@' .. version) end
  redis.call('HINCRBY', key(p, 'running', facts[1]), facts[2], 1)
  redis.call('ZADD', key(p, 'leases'), now + lease_ms, ref)
  return fence
end

-- The tenant whose turn it is: the one with the least running work by its weight, then by what it has had so far;
-- none above its cap. Empty: nobody may.
local function next_tenant(p, agent, queue, cap, weights)
  local chosen, least = '', nil
  local tenants = redis.call('ZRANGE', key(p, 'tenants', queue), 0, MOST_TENANTS - 1)
  for _, tenant in ipairs(tenants) do  -- in the order of what they have had
    local running = tonumber(redis.call('HGET', key(p, 'running', agent), tenant) or '0')
    local load = running / (weights[tenant] or 1)
    if (cap == 0 or running < cap) and (not least or load < least) then chosen, least = tenant, load end
  end
  return chosen
end

local function parsed_weights(text)
  local weights = {}
  local list = words(text)
  for i = 1, #list, 2 do weights[list[i]] = tonumber(list[i + 1]) end
  return weights
end

-- Whether a task may still be run by its queue's workers; what a newer version wrote waits apart for it.
local function is_runnable(p, agent, ref, now)
  local facts = task(p, ref, 'state', 'v')
  if facts[1] ~= 'PENDING' then return false end
  if tonumber(facts[2] or MAJOR) <= MAJOR then return true end
  redis.call('ZADD', key(p, 'ready', agent .. '#' .. facts[2]), now, ref)
  return false
end

local function pop_fairly(p, agent, queue, cap, weights, now)
  for _ = 1, 100 do
    local tenant = next_tenant(p, agent, queue, cap, weights)
    if tenant == '' then return nil end
    local ref = redis.call('ZRANGE', key(p, 'line', line_of(queue, tenant)), 0, 0)[1]
    assert(ref, 'a tenant without tasks stands in line')
    local had = redis.call('ZINCRBY', key(p, 'tenants', queue), 1 / (weights[tenant] or 1), tenant)
    redis.call('HSET', key(p, 'virtual', queue), tenant, had)
    dequeue(p, queue, tenant, ref)
    if is_runnable(p, agent, ref, now) then return ref end
  end
end

local function pop_suspect(p, agent, queue, now)
  for _ = 1, 100 do
    local ref = redis.call('ZPOPMIN', key(p, 'suspects', queue))[1]
    if not ref then return nil end
    redis.call('ZREM', key(p, 'pinned'), ref)
    if is_runnable(p, agent, ref, now) then
      redis.call('DEL', key(p, 'isolating', queue))
      return ref
    end
  end
end

-- Whether this worker is the one that should become idle for the sake of a suspect.
local function should_isolate(p, queue, owner)
  if redis.call('EXISTS', key(p, 'suspects', queue)) == 0 then return false end
  return redis.call('SET', key(p, 'isolating', queue), owner, 'NX', 'PX', ISOLATING_MS) and true or false
end

-- claim: p agent version is_pinning owner nonce lease cap weights is_idle. `weights`: "tenant weight ...". Returns {ref,
-- fence, whether it is a suspect} | {'isolate'}: end what runs here, then come again | {}.
local function claim(keys, a)
  local p, agent, version, owner, now = a[1], a[2], a[3], a[5], now_ms()
  local cap, weights, is_idle = tonumber(a[8]), parsed_weights(a[9]), a[10] == '1'
  for _, queue in ipairs({agent .. '@' .. version, agent}) do
    local ref = is_idle and pop_suspect(p, agent, queue, now)
    if not ref and should_isolate(p, queue, owner) then return {'isolate'} end
    local is_suspect = ref and 1 or 0
    ref = ref or pop_fairly(p, agent, queue, cap, weights, now)
    if ref then
      return {ref, own(p, ref, owner, a[6], tonumber(a[7]), a[4] == '1' and version or '', now), is_suspect}
    end
  end
  return {}
end
