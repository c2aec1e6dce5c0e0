-- Sessions: each in a slot of its own, `p`. `turns` are the tasks that stand in line, by ticket; the session itself is a
-- stream of (task, prompt, output), oldest first.

local KNOWN_TURNS = 1000  -- task ids by which a session tells a repetition

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

-- leave: p ref task prompt output kept_turns kept_ms. Takes a task out of the line and adds its turn, once; an empty
-- output adds nothing. Returns the ref at the head now, or ''.
local function leave(keys, a)
  local p, turns, known = a[1], key(a[1], 'turns'), key(a[1], 'session', 'tasks')
  redis.call('ZREM', turns, a[2])
  redis.call('HDEL', key(p, 'turns', 'since'), a[2])
  if a[5] ~= '' and redis.call('ZADD', known, 'NX', now_ms(), a[3]) == 1 then
    redis.call('ZREMRANGEBYRANK', known, 0, -KNOWN_TURNS - 1)
    redis.call('XADD', key(p, 'session'), 'MAXLEN', a[6], '*', 'task', a[3], 'prompt', a[4], 'output', a[5])
    redis.call('PEXPIRE', key(p, 'session'), a[7])
    redis.call('PEXPIRE', known, a[7])
  end
  return redis.call('ZRANGE', turns, 0, 0)[1] or ''
end
