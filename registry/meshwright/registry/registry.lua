-- The registry's functions: directory of instances, catalog of tools, ledger of tool outcomes.
-- `key` and `now_ms` stand in front of this text.

local MESH = 'mesh'
local KEPT_CHANGES = 10000
local LATE_MS = 1000  -- after the end of a call's time its outcome may still be on its way for so long

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
    local before = redis.call('HGET', key(MESH, 'instances', 'agents'), a[2])
    redis.call('HSET', key(MESH, 'instances'), a[2], a[3])
    redis.call('HSET', key(MESH, 'instances', 'agents'), a[2], a[1])
    changed(a[1])
    if before and before ~= a[1] then changed(before) end
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

-- A new catalog's revisions begin with the time (µs): one that was emptied never gives a number again.
local function tool_changed(name, version)
  local counter = key(MESH, 'revision', 'tools')
  if redis.call('EXISTS', counter) == 0 then
    redis.call('SET', counter, string.format('%s%06d', unpack(redis.call('TIME'))))
  end
  local revision = string.format('%.0f', redis.call('INCR', counter))
  redis.call('XADD', key(MESH, 'changes', 'tools'), 'MAXLEN', '~', KEPT_CHANGES, '0-' .. revision,
    'tool', name, 'version', version)
end

-- register: name version tool digest endpoint seen most_versions most_tools tenant line. `seen`: how many versions it was held
-- against; since none is ever removed, as many are the same ones. Returns 'stored' | 'known' | 'conflict' | 'full', or
-- 'again' where another version came in between; a known contract moves its host.
local function register(keys, a)
  local digests, hosts, names = key(MESH, 'tool', a[1] .. ':digests'), key(MESH, 'hosts', a[1]), key(MESH, 'tools', 'names')
  local known = redis.call('HGET', digests, a[2])
  if known and known ~= a[4] then return 'conflict' end
  if not known then
    local many = redis.call('HLEN', digests)
    if many ~= tonumber(a[6]) then return 'again' end
    if many >= tonumber(a[7]) or (many == 0 and redis.call('ZCARD', names) >= tonumber(a[8])) then return 'full' end
    audited(MESH, a[9], 'tool_registered', a[1] .. '@' .. a[2], a[10])
    redis.call('HSET', key(MESH, 'tool', a[1]), a[2], a[3])
    redis.call('HSET', digests, a[2], a[4])
  end
  redis.call('ZADD', names, 0, a[1])
  if redis.call('HGET', hosts, a[2]) ~= a[5] then
    redis.call('HSET', hosts, a[2], a[5])
    tool_changed(a[1], a[2])
  end
  return known and 'known' or 'stored'
end

-- set_alias: name alias version most tenant line. Returns 'set' | 'same' | 'unknown' | 'full'. The version that loses it changes too.
local function set_alias(keys, a)
  local aliases = key(MESH, 'aliases', a[1])
  if redis.call('HEXISTS', key(MESH, 'hosts', a[1]), a[3]) == 0 then return 'unknown' end
  local before = redis.call('HGET', aliases, a[2])
  if before == a[3] then return 'same' end
  if not before and redis.call('HLEN', aliases) >= tonumber(a[4]) then return 'full' end
  audited(MESH, a[5], 'tool_alias_set', a[1] .. '@' .. a[3], a[6])
  redis.call('HSET', aliases, a[2], a[3])
  if before then tool_changed(a[1], before) end
  tool_changed(a[1], a[3])
  return 'set'
end

-- deprecate: name version sunset_ms replaced_by tenant line. An empty replacement leaves the one there is. Returns 'set' | 'same' |
-- 'unknown'.
local function deprecate(keys, a)
  local sunsets = key(MESH, 'sunsets', a[1])
  if redis.call('HEXISTS', key(MESH, 'hosts', a[1]), a[2]) == 0 then return 'unknown' end
  local before = redis.call('HGET', sunsets, a[2])
  local use = a[4]
  if use == '' and before then use = string.match(before, '^%S+ (.*)$') or '' end
  local sunset = a[3] .. ' ' .. use
  if before == sunset then return 'same' end
  audited(MESH, a[5], 'tool_deprecated', a[1] .. '@' .. a[2], a[6])
  redis.call('HSET', sunsets, a[2], sunset)
  tool_changed(a[1], a[2])
  return 'set'
end

-- states: names. Returns the revision, and for each name three maps: hosts, aliases, sunsets. All of one moment.
local function states(keys, a)
  local found = {redis.call('GET', key(MESH, 'revision', 'tools')) or '0'}
  for _, name in ipairs(a) do
    for _, noun in ipairs({'hosts', 'aliases', 'sunsets'}) do
      found[#found + 1] = redis.call('HGETALL', key(MESH, noun, name))
    end
  end
  return found
end

-- contracts: name version, name version ... Returns the contracts in that order; false: there is none.
local function contracts(keys, a)
  local found = {}
  for i = 1, #a, 2 do found[#found + 1] = redis.call('HGET', key(MESH, 'tool', a[i]), a[i + 1]) end
  return found
end

-- A task's ledger: `.fence` is the highest fence seen, every other field one call:
-- "open <intent> <deadline> <token>" or "done <intent> <outcome>"; an intent is 64 characters long.
local function read(entry)
  return string.sub(entry, 1, 4), string.sub(entry, 6, 69), string.sub(entry, 71)
end

local function opening(rest)
  local deadline, token = string.match(rest, '^(%d+) (.+)$')
  return tonumber(deadline), token
end

-- begin: p ref call_key intent timeout_ms may_rerun fence token kept_ms may_begin line. The same
-- token is a repetition after a lost reply.
-- Returns {'run'} | {'done', outcome} | {'open'} | {'unknown'} | {'fenced'} | {'differs'} | {'shut'}: it would run, but
-- may not.
local function begin(keys, a)
  local ledger, now, fence = key(a[1], 'ledger', a[2]), now_ms(), tonumber(a[7])
  local seen = tonumber(redis.call('HGET', ledger, '.fence') or '0')
  if seen > fence then return {'fenced'} end
  local entry, is_repeated = redis.call('HGET', ledger, a[3]), false
  if entry then
    if seen < fence then redis.call('HSET', ledger, '.fence', a[7]) end
    local state, intent, rest = read(entry)
    if intent ~= a[4] then return {'differs'} end
    if state == 'done' then return {'done', rest} end
    local deadline, token = opening(rest)
    local is_successor = a[6] == '1' and seen < fence  -- what may be repeated need not wait for a lost owner's call
    if token ~= a[8] and not is_successor and now < deadline + LATE_MS then return {'open'} end
    if token ~= a[8] and a[6] == '0' then return {'unknown'} end
    is_repeated = token == a[8]
  end
  if a[10] == '0' then return {'shut'} end
  local opened = 'open ' .. a[4] .. ' ' .. now + tonumber(a[5]) .. ' ' .. a[8]
  if not is_repeated then audited(a[1], tenant_of(a[2]), 'tool_begun', about_task(a[2]), a[11]) end
  redis.call('HSET', ledger, a[3], opened, '.fence', a[7])
  redis.call('PEXPIRE', ledger, a[9])
  return {'run'}
end

-- look: p ref call_key. Returns {'not_seen'} | {'running'} | {'done', outcome} | {'unknown'}; changes nothing.
local function look(keys, a)
  local entry = redis.call('HGET', key(a[1], 'ledger', a[2]), a[3])
  if not entry then return {'not_seen'} end
  local state, _, rest = read(entry)
  if state == 'done' then return {'done', rest} end
  return {now_ms() < opening(rest) + LATE_MS and 'running' or 'unknown'}
end

-- settle: p ref call_key intent outcome kept_ms root_ref seal line. The first outcome wins and is
-- returned. `seal`: the data key that it is encrypted with, that of the task's tree; '': it is not.
local function settle(keys, a)
  local ledger = key(a[1], 'ledger', a[2])
  local entry = redis.call('HGET', ledger, a[3])
  if entry then
    local state, _, outcome = read(entry)
    if state == 'done' then return outcome end
  end
  if a[8] ~= '' then
    local seal = key(a[1], 'seal', a[7])
    local kept = redis.call('GET', seal)
    if kept and kept ~= a[8] then return redis.error_reply('SEALED otherwise') end
    -- one without an end is its task's; where the task is gone, it ends with the ledger
    if not kept or redis.call('PTTL', seal) > 0 then redis.call('SET', seal, a[8], 'PX', a[6]) end
  end
  audited(a[1], tenant_of(a[2]), 'tool_settled', about_task(a[2]), a[9])
  redis.call('HSET', ledger, a[3], 'done ' .. a[4] .. ' ' .. a[5])
  redis.call('PEXPIRE', ledger, a[6])
  return a[5]
end

-- forgo: p ref call_key intent outcome kept_ms root_ref seal line. Settles a call that was not begun, so that it never will be. Returns
-- {outcome that counts}, or {} where it was begun: its outcome is still to come, or unknown.
local function forgo(keys, a)
  local ledger = key(a[1], 'ledger', a[2])
  local entry = redis.call('HGET', ledger, a[3])
  if entry then
    local state, _, outcome = read(entry)
    return state == 'done' and {outcome} or {}
  end
  local settled = settle(keys, a)
  return settled.err and settled or {settled}
end

-- refused: p ref line. A call that was not let through.
local function refused(keys, a)
  audited(a[1], tenant_of(a[2]), 'tool_refused', about_task(a[2]), a[3])
end

-- take: p name interval_us burst. Counts a call by the generic cell rate algorithm: the key holds when the next call is
-- due at a steady pace. Returns 0, or the microseconds after which the call may be made.
local function take(keys, a)
  local counter, time, interval = key(a[1], 'quota', a[2]), redis.call('TIME'), tonumber(a[3])
  local now = time[1] * 1000000 + time[2]
  local due = math.max(tonumber(redis.call('GET', counter) or '0'), now)
  local early = due - (a[4] - 1) * interval - now
  if early > 0 then return math.ceil(early) end
  redis.call('SET', counter, string.format('%.0f', due + interval), 'PX', math.ceil((due + interval - now) / 1000))
  return 0
end

local TRIMMED_AT_ONCE = 100

-- Lets go of a chain's oldest lines where there are more than `kept` and a hundred, and writes which: the chain can be
-- checked from there on. Returns whether it did.
local function trim_chain(p, tenant, kept)
  local lines = audit_key(p, tenant, 'lines')
  local many = redis.pcall('LLEN', lines)
  if type(many) ~= 'number' or many <= kept + TRIMMED_AT_ONCE then return false end
  local first, through, others, link = 0, 0, 0, ''
  for _, text in ipairs(redis.call('LRANGE', lines, 0, TRIMMED_AT_ONCE - 1)) do
    local at, _, number = read_line(text)
    if number and first == 0 then first = number end
    through, link, others = number or through, at, number and others or others + 1
  end
  local facts = string.format('{"by":"","first":%.0f,"through":%.0f,"link":"%s"%s}', first, through, link,
    others > 0 and string.format(',"others":%.0f', others) or '')
  audited(p, tenant, 'trimmed', '', ' ' .. facts)
  redis.call('LTRIM', lines, TRIMMED_AT_ONCE, -1)
  return true
end

-- trim: p kept tenant... Trims the chains of some tenants by one step. Returns the tenants of whom more may go. A chain that
-- takes no line stays as it is.
local function trim(keys, a)
  local again, kept = {}, tonumber(a[2])
  for i = 3, #a do
    local is_written, is_trimmed = pcall(trim_chain, a[1], a[i], kept)
    if is_written and is_trimmed then again[#again + 1] = a[i] end
  end
  return again
end

local function define(name, callback, flags)
  redis.register_function({function_name = name .. '_VERSION', callback = callback, flags = flags or {}})
end

-- On a full store accepted tasks must finish: who is here and what they call stays true, and calls are settled.
define('announce', announce, {'allow-oom'})
define('withdraw', withdraw, {'allow-oom'})
define('expire', expire, {'allow-oom'})
define('register', register, {'allow-oom'})
define('set_alias', set_alias)
define('deprecate', deprecate)
define('states', states, {'no-writes'})
define('contracts', contracts, {'no-writes'})
define('begin', begin, {'allow-oom'})
define('look', look, {'no-writes'})
define('settle', settle, {'allow-oom'})
define('forgo', forgo, {'allow-oom'})
define('refused', refused)
define('take', take, {'allow-oom'})
define('trim', trim, {'allow-oom'})
