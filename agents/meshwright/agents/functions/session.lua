-- Sessions: each in a slot of its own, `p`. `turns` are the tasks that stand in line, by ticket. The session itself is a
-- stream of (task, agent, prompt, output), oldest first, with
--   tasks   ids of the tasks that have left a turn
--   about   created, updated, turns (how many there were), folded (how many the summary stands for), through (the last
--           of those), summary
--   facts   pinned ones, by id
-- `seal` is the session's data key, wrapped: with it prompts, outputs, facts and the summary are encrypted.

local KNOWN_TURNS = 1000  -- task ids by which a session tells a repetition

local function keep(p, kept_ms)
  redis.call('PEXPIRE', key(p, 'session'), kept_ms)
  for _, part in ipairs({'tasks', 'about', 'facts'}) do redis.call('PEXPIRE', key(p, 'session', part), kept_ms) end
  redis.call('PEXPIRE', key(p, 'seal'), kept_ms)
end

local function use(p)
  local about, now = key(p, 'session', 'about'), now_ms()
  redis.call('HSETNX', about, 'created', now)
  redis.call('HSET', about, 'updated', now)
  return about
end

-- enter: p ref is_alone kept_ms. Puts a task into the line, once; `is_alone`: only where nobody stands there. Returns
-- the ref at the head, and when it came.
local function enter(keys, a)
  local turns, since = key(a[1], 'turns'), key(a[1], 'turns', 'since')
  if not redis.call('ZSCORE', turns, a[2]) and (a[3] == '0' or redis.call('EXISTS', turns) == 0) then
    redis.call('ZADD', turns, redis.call('INCR', key(a[1], 'ticket')), a[2])
    redis.call('HSET', since, a[2], now_ms())
    for _, noun in ipairs({'turns', 'ticket'}) do redis.call('PEXPIRE', key(a[1], noun), a[4]) end
    redis.call('PEXPIRE', since, a[4])
  end
  local head = redis.call('ZRANGE', turns, 0, 0)[1]
  return {head, now_ms() - tonumber(redis.call('HGET', since, head) or '0')}
end

local function step_out(p, ref)
  redis.call('HDEL', key(p, 'turns', 'since'), ref)
  return redis.call('ZREM', key(p, 'turns'), ref) == 1
end

local function head_of(p)
  return redis.call('ZRANGE', key(p, 'turns'), 0, 0)[1] or ''
end

-- abandon: p ref. Takes a task out of the line. Returns the ref at the head now, or ''.
local function abandon(keys, a)
  step_out(a[1], a[2])
  return head_of(a[1])
end

-- leave: p ref task agent prompt output kept_turns kept_ms seal. Takes a task out of the line and adds its turn, once; an
-- empty output adds nothing. Without a ticket nothing is added: a late repetition brings no deleted session back.
-- Returns the ref at the head now, or ''.
local function leave(keys, a)
  local p, known = a[1], key(a[1], 'session', 'tasks')
  if is_sealed_otherwise(p, '', a[9]) then return sealed_otherwise() end
  if step_out(p, a[2]) then
    local about = use(p)
    seal(p, '', a[9])
    if a[6] ~= '' and redis.call('ZADD', known, 'NX', now_ms(), a[3]) == 1 then
      redis.call('ZREMRANGEBYRANK', known, 0, -KNOWN_TURNS - 1)
      redis.call('XADD', key(p, 'session'), 'MAXLEN', a[7], '*', 'task', a[3], 'agent', a[4], 'prompt', a[5],
        'output', a[6])
      redis.call('HINCRBY', about, 'turns', 1)
    end
    keep(p, a[8])
  end
  return head_of(p)
end

-- fold: p through new_through many summary seal. Lets the summary stand for `many` more turns; returns whether it still stood
-- for those up to `through`.
local function fold(keys, a)
  local about = key(a[1], 'session', 'about')
  if is_sealed_otherwise(a[1], '', a[6]) then return sealed_otherwise() end
  if redis.call('EXISTS', about) == 0 or (redis.call('HGET', about, 'through') or '') ~= a[2] then return 0 end
  redis.call('HSET', about, 'through', a[3], 'summary', a[5])
  seal(a[1], '', a[6])
  redis.call('HINCRBY', about, 'folded', a[4])
  return 1
end

-- pin: p id fact most most_bytes kept_ms seal. Returns the fact that stands there now, or nothing: there is no room.
local function pin(keys, a)
  local p, facts = a[1], key(a[1], 'session', 'facts')
  local known = redis.call('HGET', facts, a[2])
  if known then return known end
  if is_sealed_otherwise(p, '', a[7]) then return sealed_otherwise() end
  local bytes = bytes_of(a[3])
  for _, fact in ipairs(redis.call('HVALS', facts)) do bytes = bytes + bytes_of(fact) end
  if redis.call('HLEN', facts) >= tonumber(a[4]) or bytes > tonumber(a[5]) then return false end
  redis.call('HSET', facts, a[2], a[3])
  seal(p, '', a[7])
  use(p)
  keep(p, a[6])
  return a[3]
end

-- forget: p ref... Deletes a session in whose line nobody stands but those named; returns whether it did.
local function forget(keys, a)
  local p, ended = a[1], {}
  for i = 2, #a do ended[a[i]] = true end
  for _, ref in ipairs(redis.call('ZRANGE', key(p, 'turns'), 0, -1)) do
    if not ended[ref] then return 0 end
  end
  redis.call('UNLINK', key(p, 'turns'), key(p, 'turns', 'since'), key(p, 'ticket'), key(p, 'session'),
    key(p, 'seal'))
  for _, part in ipairs({'tasks', 'about', 'facts'}) do redis.call('UNLINK', key(p, 'session', part)) end
  return 1
end
