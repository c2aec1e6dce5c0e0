-- A task's life: accepted, written to, parked, ended.

local CHILD_GRACE_MS = 1000
local RANKS = {HIGH = -60000, NORMAL = 0, LOW = 60000}  -- ms that a place in the queue is worth

-- Flags the living part of a tree, itself included where asked; returns the tasks that nobody runs.
local function cancel_tree(p, ref, reason, itself)
  local idle = {}
  local function visit(here, flag)
    local state = task(p, here, 'state')[1]
    if not state then return end
    if flag and not TERMINAL[state] then
      redis.call('HSETNX', key(p, 'task', here), 'cancel', reason)
      if state == 'RUNNING' then
        redis.call('SPUBLISH', key(p, 'wake', task(p, here, 'owner')[1]), here)
      else
        redis.call('SADD', key(p, 'ending'), here)
        idle[#idle + 1] = here
      end
    end
    for _, child in ipairs(redis.call('SMEMBERS', key(p, 'children', here))) do visit(child, true) end
  end
  visit(ref, itself)
  return idle
end

-- Ends a task: state, indexes, questions, outbox, webhooks, children, waiting parent.
local function conclude(p, ref, state, now)
  local record_key = key(p, 'task', ref)
  withdraw_inputs(p, ref, now)
  disown(p, ref)
  local facts = task(p, ref, 'parent', 'queue', 'tenant', 'retention', 'session', 'poison', 'reserved_micros',
    'cost_micros', 'escrow', 'input_tokens', 'output_tokens', 'embedding_tokens')
  charge(p, ref, tonumber(facts[7] or '0'))
  local expire = now + tonumber(facts[4])
  redis.call('HSET', record_key, 'state', state, 'ended', now, 'expire', expire)
  redis.call('HDEL', record_key, 'waiting', 'turn')
  dequeue(p, facts[2], facts[3], ref)
  redis.call('ZREM', key(p, 'deadlines'), ref)
  redis.call('SREM', key(p, 'ending'), ref)
  redis.call('ZADD', key(p, 'expiry'), expire, ref)
  local is_counted = facts[1] == ''  -- money and tokens are, outside of the partition
    and (facts[7] or facts[8] or facts[9] or facts[10] or facts[11] or facts[12])
  if facts[5] ~= '' or is_counted then redis.call('XADD', key(p, 'outbox'), '*', 'ref', ref) end
  if facts[6] then redis.call('ZADD', key(p, 'dead', holder_of(ref)), task(p, ref, 'created')[1], id_of(ref)) end
  if not facts[1] or facts[1] == '' then announce(p, ref, 'task_ended', '- - 0') end
  cancel_tree(p, ref, 'the parent task ended', false)
  if facts[1] and facts[1] ~= '' then
    local parent = parent_ref(ref, facts[1])
    local above = task(p, parent, 'state', 'waiting', 'eager')
    if above[1] == 'PARKED' and tonumber(above[2] or '0') > 0 then
      local waiting = redis.call('HINCRBY', key(p, 'task', parent), 'waiting', -1)
      if waiting == 0 or (above[3] == '1' and state == 'FAILED') then enqueue(p, parent, now, true) end
    end
  end
end

-- Whether a task that is accepted may be run at once: nobody waits, and its tenant has room.
local function may_run_at_once(p, agent, tenant, cap)
  if redis.call('EXISTS', key(p, 'ready', agent)) == 1 then return false end
  return cap == 0 or tonumber(redis.call('HGET', key(p, 'running', agent), tenant) or '0') < cap
end

-- accept: p ref id agent hash request timeout retention parent root depth call trace rank session max_ready
-- tenant_max_ready owner nonce lease cap version scopes ancestors budget shared seal line n event... ; with an owner the task is
-- claimed at once where it may, its first events are written and no queue sees it. `budget`: 0: none. `shared`: see record.lua;
-- a child has its parent's. `seal`: a root's data key. `line`: see audit.lua, here and below.
-- Returns {'new', fence or '', now, shared} | {'known', hash matches} | {'expired'} | {'full'} | {'tenant full'} | {'orphan'} | {'wider'}.
local function accept(keys, a)
  local p, ref, agent, now = a[1], a[2], a[4], now_ms()
  local tenant = tenant_of(ref)
  local known = task(p, ref, 'hash', 'fence', 'shared')
  if known[1] then
    if known[2] and a[19] ~= '' and string.match(known[2], '%-(.*)$') == a[19] then return {'new', known[2], now, known[3] or ''} end
    return {'known', known[1] == a[5] and 1 or 0}
  end
  if is_buried(p, ref) then return {'expired'} end
  local parent = a[9] ~= '' and parent_ref(ref, a[9]) or nil
  local deadline, shared = now + tonumber(a[7]), a[26]
  if parent then
    local above = task(p, parent, 'state', 'cancel', 'deadline', 'scopes', 'shared')
    if not above[1] or TERMINAL[above[1]] or above[2] then return {'orphan'} end
    if a[23] ~= '[]' and a[23] ~= above[4] then return {'wider'} end  -- none: its parent runs where none are known
    -- just after the parent's: its end cancels the child, instead of the child's failure reaching it first
    deadline = math.min(deadline, tonumber(above[3]) + CHILD_GRACE_MS)
    shared = above[5] or ''
  elseif redis.call('ZCARD', key(p, 'ready', agent)) >= tonumber(a[16]) then
    return {'full'}
  elseif redis.call('ZCARD', key(p, 'line', line_of(agent, tenant))) >= tonumber(a[17]) then
    return {'tenant full'}
  end
  audited(p, tenant, 'task_accepted', about_task(ref), a[28])
  redis.call('HSET', key(p, 'task', ref), 'v', MAJOR, 'state', 'PENDING', 'id', a[3], 'agent', agent, 'queue', agent,
    'tenant', tenant, 'hash', a[5], 'request', a[6], 'created', now, 'deadline', deadline, 'retention', a[8],
    'parent', a[9], 'root', a[10], 'depth', a[11], 'call', a[12], 'trace', a[13], 'rank', RANKS[a[14]], 'session', a[15],
    'scopes', a[23], 'ancestors', a[24])
  seal(p, ref, a[27])
  if a[25] ~= '0' then redis.call('HSET', key(p, 'task', ref), 'budget', a[25]) end
  if shared ~= '' then redis.call('HSET', key(p, 'task', ref), 'shared', shared) end
  redis.call('ZADD', key(p, 'deadlines'), deadline, ref)
  redis.call('ZADD', key(p, 'index', holder_of(ref)), now, a[3])
  if parent then redis.call('SADD', key(p, 'children', parent), ref) end
  if a[15] ~= '' then redis.call('SADD', key(p, 'members', in_session(ref, a[15])), ref) end
  if a[18] == '' or not may_run_at_once(p, agent, tenant, tonumber(a[21])) then
    enqueue(p, ref, now, parent ~= nil)
    return {'new', '', now, shared}
  end
  local fence = own(p, ref, a[18], a[19], tonumber(a[20]), a[22], now)
  local first = record(p, ref, slice(a, 30, tonumber(a[29])), {}, now)
  if first then redis.call('HSET', key(p, 'task', ref), 'barren', 0) end
  return {'new', fence, now, shared}
end

-- append: p ref fence event_key is_progress counters escrow n event... asked...; counters: one argument, "name value
-- name value"; escrow: "-" where no money is taken, else see `shortage`; asked: see `ask`. A repeated event key writes
-- nothing.
-- Returns {first sequence, now, cancel reason or ''} | {'fenced'} | {'full'} | what `shortage` returns.
local function append(keys, a)
  local p, ref = a[1], a[2]
  local facts = task(p, ref, 'fence', 'cancel')
  if facts[1] ~= a[3] then return {'fenced'} end
  local seen = redis.call('HGET', key(p, 'seen', ref), a[4])
  if seen then
    local first, at = string.match(seen, '(%d+) (%d+)')
    return {tonumber(first), tonumber(at), facts[2] or ''}
  end
  local many, counters = tonumber(a[8]), words(a[6])
  local payloads = slice(a, 9, many)
  if not has_room(p, ref, payloads) then return {'full'} end
  local short = a[7] ~= '-' and shortage(p, ref, counters, a[7])
  if short then return short end
  local now = now_ms()
  local first = record(p, ref, payloads, counters, now)
  if #a > 8 + many then ask(p, ref, slice(a, 9 + many, #a - 8 - many)) end
  redis.call('HSET', key(p, 'seen', ref), a[4], string.format('%d %d', first, now))
  if a[5] == '1' then redis.call('HSET', key(p, 'task', ref), 'barren', 0) end
  return {first, now, facts[2] or ''}
end

-- park: p ref fence last_sequence waiting is_turn is_held is_eager event; `waiting`: children that have not ended;
-- `is_turn`: for its turn in a session; `is_held`: for a person; `is_eager`: a child's failure wakes it, too.
-- Returns 'parked' | 'changed' | 'fenced'.
local function park(keys, a)
  local p, ref = a[1], a[2]
  local facts = task(p, ref, 'fence', 'seq', 'cancel', 'nudged')
  if facts[1] ~= a[3] then return 'fenced' end
  if (facts[2] or '0') ~= a[4] or facts[3] then return 'changed' end
  if a[6] == '1' and facts[4] then
    redis.call('HDEL', key(p, 'task', ref), 'nudged')
    return 'changed'
  end
  local now = now_ms()
  record(p, ref, {a[9]}, {}, now)
  disown(p, ref)
  redis.call('HSET', key(p, 'task', ref), 'state', 'PARKED', 'waiting', a[5], 'turn', a[6], 'eager', a[8], 'barren', 0)
  if a[7] == '1' then freeze(p, ref, now) end
  return 'parked'
end

-- nudge: p ref. Tells a task that its turn in a session may have come.
local function nudge(keys, a)
  local p, ref = a[1], a[2]
  local facts = task(p, ref, 'state', 'turn')
  if facts[1] == 'PARKED' and facts[2] == '1' then
    enqueue(p, ref, now_ms(), true)
  elseif facts[1] and not TERMINAL[facts[1]] then
    redis.call('HSET', key(p, 'task', ref), 'nudged', 1)
  end
end

-- finish: p ref fence state counters n event... ; the last event is the result. Returns {first, now} | {'fenced'} |
-- {'ended'}: the first end wins.
local function finish(keys, a)
  local p, ref = a[1], a[2]
  local facts = task(p, ref, 'fence', 'state')
  if not facts[2] or TERMINAL[facts[2]] then return {'ended'} end
  if facts[1] ~= a[3] then return {'fenced'} end
  local now = now_ms()
  local first = record(p, ref, slice(a, 7, tonumber(a[6])), words(a[5]), now)
  conclude(p, ref, a[4], now)
  return {first, now}
end

-- finish_idle: p ref state event. Ends a task that nobody runs. Returns 1, or 0 where it is owned or has ended.
local function finish_idle(keys, a)
  local p, ref = a[1], a[2]
  local state = task(p, ref, 'state')[1]
  if not state or TERMINAL[state] then redis.call('SREM', key(p, 'ending'), ref); return 0 end
  if state == 'RUNNING' then return 0 end
  if is_newer(p, ref) then return redis.error_reply('NEWER journal') end
  local now = now_ms()
  record(p, ref, {a[4]}, {}, now)
  conclude(p, ref, a[3], now)
  return 1
end

-- cancel: p ref reason line. Returns {0} where there is nothing to cancel, else {1, idle ref...}: those have to be ended.
local function cancel(keys, a)
  local p, ref = a[1], a[2]
  local facts = task(p, ref, 'state', 'cancel')
  if not facts[1] or TERMINAL[facts[1]] then return {0} end
  if not facts[2] then audited(p, tenant_of(ref), 'task_cancelled', about_task(ref), a[4]) end
  return {1, unpack(cancel_tree(p, ref, a[3], true))}
end

-- resolve: p shown_ref input_id digest is_unpinning event budget line. Writes a decision to the task that asked and wakes it;
-- `budget`: what the task may cost from now on, 0: as before.
-- Returns 'done' | 'gone' | 'differs': nothing was changed.
local function resolve(keys, a)
  local p, shown, id = a[1], a[2], a[3]
  local entry = redis.call('HGET', key(p, 'inputs', shown), id)
  if not entry then return 'gone' end
  local origin, digest = string.match(entry, '^(%S+) (%S+) ')
  if digest ~= (a[4] == '' and '-' or a[4]) then return 'differs' end
  local ref, now = parent_ref(shown, origin), now_ms()
  local state = task(p, ref, 'state')[1]
  if not state or TERMINAL[state] then return 'gone' end
  if is_newer(p, ref) then return redis.error_reply('NEWER journal') end
  audited(p, tenant_of(ref), 'input_resolved', about_task(ref), a[8])
  record(p, ref, {a[6]}, {}, now)
  for _, here in ipairs(lineage(p, ref)) do forget_input(p, here, id) end
  redis.call('ZREM', key(p, 'lapses'), lapse(ref, id))
  if a[5] == '1' then redis.call('HSET', key(p, 'task', ref), 'queue', task(p, ref, 'agent')[1]) end
  local budget = task(p, ref, 'budget')[1]
  if budget and tonumber(a[7]) > tonumber(budget) then redis.call('HSET', key(p, 'task', ref), 'budget', a[7]) end
  if state == 'PARKED' then enqueue(p, ref, now, true) end
  return 'done'
end

-- strand: p ref event id digest lapses question. Asks a person about a task that waits for workers of a version which
-- does not come. Returns whether it still waited.
local function strand(keys, a)
  local p, ref, now = a[1], a[2], now_ms()
  local facts = task(p, ref, 'state', 'queue', 'tenant')
  if facts[1] ~= 'PENDING' or not redis.call('ZSCORE', key(p, 'pinned'), ref) then return 0 end
  dequeue(p, facts[2], facts[3], ref)
  record(p, ref, {a[3]}, {}, now)
  ask(p, ref, slice(a, 4, 4))
  redis.call('HSET', key(p, 'task', ref), 'state', 'PARKED', 'waiting', 0)
  freeze(p, ref, now)
  return 1
end

-- drop: p ref event line. Takes a task off the list of those that were given up.
local function drop(keys, a)
  local p, ref = a[1], a[2]
  if not redis.call('ZSCORE', key(p, 'dead', holder_of(ref)), id_of(ref)) then return end
  audited(p, tenant_of(ref), a[3], about_task(ref), a[4])
  redis.call('ZREM', key(p, 'dead', holder_of(ref)), id_of(ref))
end

-- note: p tenant event about line. Writes a line of the audit alone.
local function note_down(keys, a)
  audited(a[1], a[2], a[3], a[4], a[5])
end

-- pass_on: p ref event. Shows a frame that is not kept to the watchers of a task and of its ancestors.
local function pass_on(keys, a)
  local p, path = a[1], ''
  for _, here in ipairs(lineage(p, a[2])) do
    redis.call('SPUBLISH', key(p, 'tail', here), '0 ' .. now_ms() .. ' ' .. path .. '\ne' .. a[3])
    path = outward(here, 0, path)
  end
end

-- release: p ref fence. Hands a task back uncounted, for a draining worker.
local function release(keys, a)
  local p, ref = a[1], a[2]
  if task(p, ref, 'fence')[1] ~= a[3] then return 0 end
  if tonumber(task(p, ref, 'barren')[1]) > 0 then redis.call('HINCRBY', key(p, 'task', ref), 'barren', -1) end
  enqueue(p, ref, now_ms(), true)
  return 1
end
