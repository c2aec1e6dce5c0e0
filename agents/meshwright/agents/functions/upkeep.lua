-- Upkeep: what owners, and those who look after lost ones, do again and again.

local MOST_BARREN = 5  -- claims in a row that appended nothing
local AT_ONCE = 100

-- beat: p lease (ref fence)... Returns {refs that are lost, refs that somebody wants to stop}.
local function beat(keys, a)
  local p, lost, cancelled, now = a[1], {}, {}, now_ms()
  for i = 3, #a, 2 do
    local facts = task(p, a[i], 'fence', 'cancel')
    if facts[1] == a[i + 1] then
      redis.call('ZADD', key(p, 'leases'), now + tonumber(a[2]), a[i])
      if facts[2] then cancelled[#cancelled + 1] = a[i] end
    else
      lost[#lost + 1] = a[i]
    end
  end
  return {lost, cancelled}
end

-- After a restart of the store nobody is taken over for one full lease: living owners beat first.
local function is_grace(p, lease_ms, now)
  local run_id = string.match(redis.call('INFO', 'server'), 'run_id:(%w+)')
  local boot = redis.call('HMGET', key(p, 'boot'), 'run_id', 'since')
  if boot[1] ~= run_id then
    local since = boot[1] and now or 0
    redis.call('HSET', key(p, 'boot'), 'run_id', run_id, 'since', since)
    return since > 0
  end
  return now < tonumber(boot[2]) + lease_ms
end

local function due(p, noun, now)
  return redis.call('ZRANGEBYSCORE', key(p, noun), '-inf', now, 'LIMIT', 0, AT_ONCE)
end

-- Takes a task from a worker that is lost; one that has taken too many down with it is given up.
local function take_over(p, ref, now)
  local barren = tonumber(redis.call('HGET', key(p, 'task', ref), 'barren') or '0')
  redis.call('HINCRBY', key(p, 'task', ref), 'attempt', 1)
  if barren < MOST_BARREN then return enqueue(p, ref, now, true) end
  disown(p, ref)
  redis.call('HSET', key(p, 'task', ref), 'state', 'PENDING', 'poison', 1)
  redis.call('SADD', key(p, 'ending'), ref)
end

-- sweep: p lease. Re-queues the tasks of lost workers. Returns {how many, refs to end: cancelled, out of time, or given
-- up; "ref input_id" of questions that lapse; refs that no worker of their version takes}.
local function sweep(keys, a)
  local p, lease_ms, now = a[1], tonumber(a[2]), now_ms()
  local taken, idle = 0, {}
  if not is_grace(p, lease_ms, now) then
    for _, ref in ipairs(due(p, 'leases', now)) do
      if task(p, ref, 'state')[1] == 'RUNNING' then
        taken = taken + 1
        take_over(p, ref, now)
      else
        redis.call('ZREM', key(p, 'leases'), ref)
      end
    end
  end
  for _, ref in ipairs(due(p, 'deadlines', now)) do
    if task(p, ref, 'state')[1] ~= 'RUNNING' then idle[#idle + 1] = ref end
  end
  for _, ref in ipairs(redis.call('SRANDMEMBER', key(p, 'ending'), AT_ONCE)) do idle[#idle + 1] = ref end
  return {taken, idle, due(p, 'lapses', now), due(p, 'pinned', now - 3 * lease_ms)}
end

-- Deletes a task that has ended; only its tombstone is left, and the lines of the audit. Children go with their root.
local function remove_task(p, ref, tombstone_ms, line)
  local facts = task(p, ref, 'session', 'parent')
  local session = facts[1]
  if facts[2] == '' then audited(p, tenant_of(ref), 'task_deleted', about_task(ref), line) end
  if session and session ~= '' then redis.call('SREM', key(p, 'members', in_session(ref, session)), ref) end
  for _, noun in ipairs({'task', 'log', 'seen', 'blob', 'children', 'inputs', 'ledger', 'seal'}) do
    redis.call('UNLINK', key(p, noun, ref))
  end
  redis.call('ZREM', key(p, 'index', holder_of(ref)), id_of(ref))
  redis.call('ZREM', key(p, 'dead', holder_of(ref)), id_of(ref))
  redis.call('ZREM', key(p, 'expiry'), ref)
  bury(p, ref, tombstone_ms)
end

-- purge: p tombstone_ms line. Deletes what has expired; returns how many.
local function purge(keys, a)
  local expired = due(a[1], 'expiry', now_ms())
  for _, ref in ipairs(expired) do remove_task(a[1], ref, a[2], a[3]) end
  return #expired
end

-- A task and all below it; nothing where one of them has not ended.
local function ended_tree(p, ref)
  local tree, at = {ref}, 1
  while tree[at] do
    local state = task(p, tree[at], 'state')[1]
    if state and not TERMINAL[state] then return nil end
    for _, child in ipairs(redis.call('SMEMBERS', key(p, 'children', tree[at]))) do tree[#tree + 1] = child end
    at = at + 1
  end
  return tree
end

-- erase: p session_ref tombstone_ms line. Deletes tasks of a session with all below them, some at a time; returns how many
-- roots, fewer than AT_ONCE: all are gone, or -1: one has not ended, and it and those not looked at yet are left.
local function erase(keys, a)
  local p, members = a[1], key(a[1], 'members', a[2])
  local roots = redis.call('SRANDMEMBER', members, AT_ONCE)
  for _, root in ipairs(roots) do
    local tree = ended_tree(p, root)
    if not tree then return -1 end
    for _, ref in ipairs(tree) do remove_task(p, ref, a[3], a[4]) end
    redis.call('SREM', members, root)
  end
  return #roots
end
