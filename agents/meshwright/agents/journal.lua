-- The journal's functions. Everything that must happen at once happens in one of them; nothing is written before
-- everything is checked, since Lua does not roll back. `key` and `now_ms` stand in front of this text.
--
-- A task's record is a hash:
--   state     PENDING | RUNNING | PARKED | INPUT_REQUIRED | COMPLETED | FAILED | CANCELLED
--   agent, hash, request, id, parent, root, depth, call, trace      as accepted
--   created, started, ended, deadline, expire                       store time, ms
--   owner, fence, fences, attempt, barren                           ownership
--   seq, blobs, waiting, cancel, retention                          journal, parking, cancellation
--   steps, input_tokens, ...                                        counters, this task with its children
-- Its log is a stream whose ids are 0-<sequence>; an entry holds t (ms), e (event) or b (size of the blob that holds
-- it), and p (path) where it is a descendant's event: "child:sequence,grandchild:sequence", outermost first.

local INLINE = 65536
local MAX_EVENTS = 10000
local MAX_EVENT_BYTES = 4194304
local MAX_BLOB_BYTES = 33554432
local KNOWN_TURNS = 1000  -- task ids by which a session tells a repetition
local CHILD_GRACE_MS = 1000
local RESUMED_FIRST_MS = 60000  -- children and resumed tasks overtake new roots that wait less than this

local TERMINAL = {COMPLETED = true, FAILED = true, CANCELLED = true}

local function task(p, ref, ...)
  return redis.call('HMGET', key(p, 'task', ref), ...)
end

local function parent_ref(ref, parent_id)
  return string.match(ref, '^(.*/)[^/]*$') .. parent_id
end

-- A task and its living ancestors, innermost first.
local function lineage(p, ref)
  local line = {ref}
  while true do
    local parent = task(p, ref, 'parent')[1]
    if not parent or parent == '' then return line end
    ref = parent_ref(ref, parent)
    local state = task(p, ref, 'state')[1]
    if not state or TERMINAL[state] then return line end
    line[#line + 1] = ref
  end
end

-- The path of an event as the parent of `ref` sees it.
local function outward(ref, sequence, path)
  local step = string.match(ref, '[^/]*$') .. ':' .. sequence
  return path == '' and step or step .. ',' .. path
end

-- Writes one entry and hands it to followers; returns its sequence.
local function write(p, ref, path, payload, now)
  local sequence = redis.call('HINCRBY', key(p, 'task', ref), 'seq', 1)
  local entry = {'t', now}
  local frame = string.format('%d %d %s\n', sequence, now, path)
  if path ~= '' then entry[3] = 'p'; entry[4] = path end
  if #payload > INLINE then
    redis.call('HSET', key(p, 'blob', ref), sequence, payload)
    redis.call('HINCRBY', key(p, 'task', ref), 'blobs', #payload)
    entry[#entry + 1] = 'b'; entry[#entry + 1] = #payload
    frame = frame .. 'b'
  else
    entry[#entry + 1] = 'e'; entry[#entry + 1] = payload
    frame = frame .. 'e' .. payload
  end
  redis.call('XADD', key(p, 'log', ref), '0-' .. sequence, unpack(entry))
  redis.call('SPUBLISH', key(p, 'tail', ref), frame)
  return sequence
end

local function words(text)
  local list = {}
  for word in string.gmatch(text, '%S+') do list[#list + 1] = word end
  return list
end

-- Writes events to a task and, numbered anew, to every living ancestor, and adds up what they cost; returns the first
-- sequence.
local function record(p, ref, payloads, counters, now)
  local line, first = lineage(p, ref), nil
  for _, payload in ipairs(payloads) do
    local path = ''
    for _, here in ipairs(line) do
      local sequence = write(p, here, path, payload, now)
      first = first or sequence
      path = outward(here, sequence, path)
    end
  end
  for _, here in ipairs(line) do
    for i = 1, #counters, 2 do
      local is_counted = here == ref or counters[i] ~= 'steps'  -- steps are a task's own
      if is_counted then redis.call('HINCRBY', key(p, 'task', here), counters[i], counters[i + 1]) end
    end
  end
  return first
end

-- Whether a task and its living ancestors can take further events.
local function has_room(p, ref, payloads)
  local large = 0
  for _, payload in ipairs(payloads) do
    if #payload > MAX_EVENT_BYTES then return false end
    if #payload > INLINE then large = large + #payload end
  end
  for _, here in ipairs(lineage(p, ref)) do
    local facts = task(p, here, 'seq', 'blobs')
    if tonumber(facts[1] or '0') + #payloads > MAX_EVENTS then return false end
    if large > 0 and tonumber(facts[2] or '0') + large > MAX_BLOB_BYTES then return false end
  end
  return true
end

local function enqueue(p, ref, now, is_first)
  local facts = task(p, ref, 'agent', 'cancel')
  local agent = facts[1]
  redis.call('HSET', key(p, 'task', ref), 'state', 'PENDING')
  redis.call('HDEL', key(p, 'task', ref), 'owner', 'fence')
  redis.call('ZREM', key(p, 'leases'), ref)
  redis.call('ZADD', key(p, 'ready', agent), is_first and now - RESUMED_FIRST_MS or now, ref)
  if facts[2] then redis.call('SADD', key(p, 'ending'), ref) end
  redis.call('SPUBLISH', key(p, 'wake', agent), ref)
end

local function own(p, ref, owner, nonce, lease_ms, now)
  local record_key = key(p, 'task', ref)
  local fence = redis.call('HINCRBY', record_key, 'fences', 1) .. '-' .. nonce
  redis.call('HSET', record_key, 'state', 'RUNNING', 'owner', owner, 'fence', fence)
  redis.call('HSETNX', record_key, 'started', now)
  redis.call('HSETNX', record_key, 'attempt', 1)
  redis.call('HINCRBY', record_key, 'barren', 1)
  redis.call('ZADD', key(p, 'leases'), now + lease_ms, ref)
  return fence
end

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

-- Ends a task: state, indexes, outbox, children, waiting parent.
local function conclude(p, ref, state, now)
  local record_key = key(p, 'task', ref)
  local facts = task(p, ref, 'parent', 'agent', 'retention', 'seq')
  local expire = now + tonumber(facts[3])
  redis.call('HSET', record_key, 'state', state, 'ended', now, 'expire', expire)
  redis.call('HDEL', record_key, 'owner', 'fence', 'waiting')
  redis.call('ZREM', key(p, 'leases'), ref)
  redis.call('ZREM', key(p, 'deadlines'), ref)
  redis.call('ZREM', key(p, 'ready', facts[2]), ref)
  redis.call('SREM', key(p, 'ending'), ref)
  redis.call('ZADD', key(p, 'expiry'), expire, ref)
  redis.call('XADD', key(p, 'outbox'), '*', 'ref', ref, 'seq', facts[4], 'state', state)
  cancel_tree(p, ref, 'the parent task ended', false)
  if facts[1] and facts[1] ~= '' then
    local parent = parent_ref(ref, facts[1])
    local above = task(p, parent, 'state', 'waiting')
    if above[1] == 'PARKED' and redis.call('HINCRBY', key(p, 'task', parent), 'waiting', -1) <= 0 then
      enqueue(p, parent, now, true)
    end
  end
end

local function slice(args, from, many)
  local part = {}
  for i = from, from + many - 1 do part[#part + 1] = args[i] end
  return part
end

-- accept: p ref id agent hash request timeout retention parent root depth call trace max_ready owner nonce lease n
-- event... ; with an owner the task is claimed at once, its first events are written and no queue sees it.
-- Returns {'new', fence or '', now} | {'known', hash matches} | {'expired'} | {'full'} | {'orphan'}.
local function accept(keys, a)
  local p, ref = a[1], a[2]
  local now = now_ms()
  local known = task(p, ref, 'hash', 'fence')
  if known[1] then
    if known[2] and a[16] ~= '' and string.match(known[2], '%-(.*)$') == a[16] then return {'new', known[2], now} end
    return {'known', known[1] == a[5] and 1 or 0}
  end
  if redis.call('EXISTS', key(p, 'tomb', ref)) == 1 then return {'expired'} end
  local parent = a[9] ~= '' and parent_ref(ref, a[9]) or nil
  local deadline = now + tonumber(a[7])
  if parent then
    local above = task(p, parent, 'state', 'cancel', 'deadline')
    if not above[1] or TERMINAL[above[1]] or above[2] then return {'orphan'} end
    -- just after the parent's: its end cancels the child, instead of the child's failure reaching it first
    deadline = math.min(deadline, tonumber(above[3]) + CHILD_GRACE_MS)
  elseif redis.call('ZCARD', key(p, 'ready', a[4])) >= tonumber(a[14]) then
    return {'full'}
  end
  redis.call('HSET', key(p, 'task', ref), 'state', 'PENDING', 'id', a[3], 'agent', a[4], 'hash', a[5], 'request', a[6],
    'created', now, 'deadline', deadline, 'retention', a[8], 'parent', a[9], 'root', a[10], 'depth', a[11],
    'call', a[12], 'trace', a[13])
  redis.call('ZADD', key(p, 'deadlines'), deadline, ref)
  redis.call('ZADD', key(p, 'index', string.match(ref, '^(.*)/[^/]*$')), now, a[3])
  if parent then redis.call('SADD', key(p, 'children', parent), ref) end
  if a[15] == '' then
    enqueue(p, ref, now, parent ~= nil)
    return {'new', '', now}
  end
  local fence = own(p, ref, a[15], a[16], tonumber(a[17]), now)
  record(p, ref, slice(a, 19, tonumber(a[18])), {}, now)
  return {'new', fence, now}
end

-- claim: p agent owner nonce lease. Returns {ref, fence} or {}.
local function claim(keys, a)
  local p, agent = a[1], a[2]
  local now = now_ms()
  for _ = 1, 100 do
    local next = redis.call('ZPOPMIN', key(p, 'ready', agent))
    if #next == 0 then return {} end
    local ref = next[1]
    if task(p, ref, 'state')[1] == 'PENDING' then return {ref, own(p, ref, a[3], a[4], tonumber(a[5]), now)} end
  end
  return {}
end

-- append: p ref fence event_key is_progress counters n event... ; counters: one argument, "name value name value".
-- Returns {first sequence, now, cancel reason or ''} | {'fenced'} | {'full'}. A repeated event key writes nothing.
local function append(keys, a)
  local p, ref = a[1], a[2]
  local facts = task(p, ref, 'fence', 'cancel')
  if facts[1] ~= a[3] then return {'fenced'} end
  local seen = redis.call('HGET', key(p, 'seen', ref), a[4])
  if seen then
    local first, at = string.match(seen, '(%d+) (%d+)')
    return {tonumber(first), tonumber(at), facts[2] or ''}
  end
  local payloads = slice(a, 8, tonumber(a[7]))
  if not has_room(p, ref, payloads) then return {'full'} end
  local now = now_ms()
  local first = record(p, ref, payloads, words(a[6]), now)
  redis.call('HSET', key(p, 'seen', ref), a[4], string.format('%d %d', first, now))
  if a[5] == '1' then redis.call('HSET', key(p, 'task', ref), 'barren', 0) end
  return {first, now, facts[2] or ''}
end

-- park: p ref fence last_sequence waiting event. Returns 'parked' | 'changed' | 'fenced'.
local function park(keys, a)
  local p, ref = a[1], a[2]
  local facts = task(p, ref, 'fence', 'seq', 'cancel')
  if facts[1] ~= a[3] then return 'fenced' end
  if (facts[2] or '0') ~= a[4] or facts[3] then return 'changed' end
  local now = now_ms()
  record(p, ref, {a[6]}, {}, now)
  redis.call('HSET', key(p, 'task', ref), 'state', 'PARKED', 'waiting', a[5], 'barren', 0)
  redis.call('HDEL', key(p, 'task', ref), 'owner', 'fence')
  redis.call('ZREM', key(p, 'leases'), ref)
  return 'parked'
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
  local now = now_ms()
  record(p, ref, {a[4]}, {}, now)
  conclude(p, ref, a[3], now)
  return 1
end

-- cancel: p ref reason. Returns {0} where there is nothing to cancel, else {1, idle ref...}: those have to be ended.
local function cancel(keys, a)
  local p, ref = a[1], a[2]
  local state = task(p, ref, 'state')[1]
  if not state or TERMINAL[state] then return {0} end
  return {1, unpack(cancel_tree(p, ref, a[3], true))}
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
  redis.call('HINCRBY', key(p, 'task', ref), 'barren', -1)
  enqueue(p, ref, now_ms(), true)
  return 1
end

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

-- sweep: p lease. Re-queues the tasks of lost workers. Returns {number taken over, ref...}: idle tasks that must be
-- ended because they were cancelled or their time is over.
local function sweep(keys, a)
  local p, lease_ms, now = a[1], tonumber(a[2]), now_ms()
  local taken, idle = 0, {}
  if not is_grace(p, lease_ms, now) then
    for _, ref in ipairs(redis.call('ZRANGEBYSCORE', key(p, 'leases'), '-inf', now, 'LIMIT', 0, 100)) do
      if task(p, ref, 'state')[1] == 'RUNNING' then
        taken = taken + 1
        redis.call('HINCRBY', key(p, 'task', ref), 'attempt', 1)
        enqueue(p, ref, now, true)
      else
        redis.call('ZREM', key(p, 'leases'), ref)
      end
    end
  end
  for _, ref in ipairs(redis.call('ZRANGEBYSCORE', key(p, 'deadlines'), '-inf', now, 'LIMIT', 0, 100)) do
    if task(p, ref, 'state')[1] ~= 'RUNNING' then idle[#idle + 1] = ref end
  end
  for _, ref in ipairs(redis.call('SRANDMEMBER', key(p, 'ending'), 100)) do idle[#idle + 1] = ref end
  return {taken, unpack(idle)}
end

-- purge: p tombstone_ms. Deletes what has expired; returns how many.
local function purge(keys, a)
  local p, now = a[1], now_ms()
  local expired = redis.call('ZRANGEBYSCORE', key(p, 'expiry'), '-inf', now, 'LIMIT', 0, 100)
  for _, ref in ipairs(expired) do
    for _, noun in ipairs({'task', 'log', 'seen', 'blob', 'children'}) do redis.call('UNLINK', key(p, noun, ref)) end
    local holder, id = string.match(ref, '^(.*)/([^/]*)$')
    redis.call('ZREM', key(p, 'index', holder), id)
    redis.call('ZREM', key(p, 'expiry'), ref)
    redis.call('SET', key(p, 'tomb', ref), 1, 'PX', a[2])
  end
  return #expired
end

-- remember: p task prompt output kept_turns kept_ms; p is the session's own slot. Adds a turn once; returns whether.
local function remember(keys, a)
  local session, known = key(a[1], 'session'), key(a[1], 'session', 'tasks')
  if redis.call('ZADD', known, 'NX', now_ms(), a[2]) == 0 then return 0 end
  redis.call('ZREMRANGEBYRANK', known, 0, -KNOWN_TURNS - 1)
  redis.call('XADD', session, 'MAXLEN', a[5], '*', 'task', a[2], 'prompt', a[3], 'output', a[4])
  redis.call('PEXPIRE', session, a[6])
  redis.call('PEXPIRE', known, a[6])
  return 1
end

local function define(name, callback, flags)
  redis.register_function({function_name = name .. '_VERSION', callback = callback, flags = flags})
end

define('accept', accept)
define('claim', claim)
define('append', append)
define('park', park)
define('finish', finish, {'allow-oom'})
define('finish_idle', finish_idle, {'allow-oom'})
define('cancel', cancel, {'allow-oom'})
define('pass_on', pass_on, {'allow-oom'})
define('release', release, {'allow-oom'})
define('beat', beat, {'allow-oom'})
define('sweep', sweep, {'allow-oom'})
define('purge', purge, {'allow-oom'})
define('remember', remember)
