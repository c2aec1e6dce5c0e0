-- Webhooks: what hosts of agents want to be told. `hooks` holds, by agent, "<queue> <events> <tenants>" for each endpoint,
-- lists with commas, '*' for every tenant. `deliveries` of a queue are its events by the time (ms) of their next attempt:
-- "<event> <ref> <ref of the task that asks> <input id> <sequence> <ms>". `attempts` counts how often each was tried,
-- `dropped` the events that found their queue full; `gone` are queues whose endpoint wants nothing any more. `endpoints`
-- holds, by agent, what its host has declared, for people: a line of `hooks`, a name and a place.
--
-- `outcomes` of a queue tell of the last attempt at an event, by its id: "<state> <attempt> <event as above> <why>", the state
-- `failed` (it comes again), `delivered` or `givenup`; `delivered` and `givenup` list the ids of such events by the time (ms).

local MOST_DELIVERIES = 10000
local MOST_SETTLED = 1000
local SETTLED_KEPT_MS = 7 * 86400000

local function is_listed(list, word)
  return list == '*' or string.find(',' .. list .. ',', ',' .. word .. ',', 1, true) ~= nil
end

-- Queues an event of a task for the endpoints of its agent.
local function announce(p, ref, event, details)
  local facts = task(p, ref, 'agent', 'tenant')
  local hooks = redis.call('HGET', key(p, 'hooks'), facts[1])
  if not hooks then return end
  local now = now_ms()
  for queue, events, tenants in string.gmatch(hooks, '(%S+) (%S+) (%S+)') do
    if is_listed(events, event) and is_listed(tenants, facts[2]) then
      if redis.call('ZCARD', key(p, 'deliveries', queue)) < MOST_DELIVERIES then
        redis.call('ZADD', key(p, 'deliveries', queue), now, string.format('%s %s %s %d', event, ref, details, now))
      else
        redis.call('HINCRBY', key(p, 'dropped'), queue, 1)
      end
    end
  end
end

-- Deletes a queue; returns how many events were in it.
local function forget_queue(p, queue)
  local many = redis.call('ZCARD', key(p, 'deliveries', queue))
  redis.call('UNLINK', key(p, 'deliveries', queue), key(p, 'attempts', queue), key(p, 'outcomes', queue))
  redis.call('UNLINK', key(p, 'delivered', queue), key(p, 'givenup', queue))
  redis.call('HDEL', key(p, 'dropped'), queue)
  return many
end

-- hook: p agent hooks endpoints. Sets the endpoints of an agent; those that are gone stay away, and queues that are not
-- named any more are deleted. Returns how many events were in these.
local function hook(keys, a)
  local p, agent, kept, lines, lost = a[1], a[2], {}, {}, 0
  for queue, events, tenants in string.gmatch(a[3], '(%S+) (%S+) (%S+)') do
    kept[queue] = true
    if redis.call('HEXISTS', key(p, 'gone'), queue) == 0 then
      lines[#lines + 1] = queue .. ' ' .. events .. ' ' .. tenants
    end
  end
  for queue in string.gmatch(redis.call('HGET', key(p, 'hooks'), agent) or '', '(%S+) %S+ %S+') do
    if not kept[queue] then lost = lost + forget_queue(p, queue) end
  end
  if #lines == 0 then
    redis.call('HDEL', key(p, 'hooks'), agent)
  else
    redis.call('HSET', key(p, 'hooks'), agent, table.concat(lines, '\n'))
  end
  if a[4] == '' then
    redis.call('HDEL', key(p, 'endpoints'), agent)
  else
    redis.call('HSET', key(p, 'endpoints'), agent, a[4])
  end
  return lost
end

-- unhook: p agent queue. Takes away an endpoint that wants nothing any more. Returns how many events were left.
local function unhook(keys, a)
  local p, agent, gone, lines = a[1], a[2], a[3], {}
  redis.call('HSET', key(p, 'gone'), gone, now_ms())
  for queue, events, tenants in string.gmatch(redis.call('HGET', key(p, 'hooks'), agent) or '', '(%S+) (%S+) (%S+)') do
    if queue ~= gone then lines[#lines + 1] = queue .. ' ' .. events .. ' ' .. tenants end
  end
  if #lines == 0 then
    redis.call('HDEL', key(p, 'hooks'), agent)
  else
    redis.call('HSET', key(p, 'hooks'), agent, table.concat(lines, '\n'))
  end
  return forget_queue(p, gone)
end

-- collect: p queue lease many. Takes events whose time has come; they come again after the lease unless they are settled.
-- Returns {now, events in the queue, events dropped since it was asked last, entry, attempt, ...}.
local function collect(keys, a)
  local p, queue, now = a[1], a[2], now_ms()
  local dropped = tonumber(redis.call('HGET', key(p, 'dropped'), queue) or '0')
  if dropped > 0 then redis.call('HDEL', key(p, 'dropped'), queue) end
  local taken = {now, redis.call('ZCARD', key(p, 'deliveries', queue)), dropped}
  local entries = redis.call('ZRANGEBYSCORE', key(p, 'deliveries', queue), '-inf', now, 'LIMIT', 0, a[4])
  for _, entry in ipairs(entries) do
    redis.call('ZADD', key(p, 'deliveries', queue), now + tonumber(a[3]), entry)
    taken[#taken + 1] = entry
    taken[#taken + 1] = redis.call('HINCRBY', key(p, 'attempts', queue), entry, 1)
  end
  return taken
end

-- Forgets the oldest of a queue's settled events where there are too many, and those that were kept long enough.
local function forget_settled(p, queue, list)
  local old = redis.call('ZRANGEBYSCORE', list, '-inf', now_ms() - SETTLED_KEPT_MS, 'LIMIT', 0, 100)
  if #old == 0 and redis.call('ZCARD', list) > MOST_SETTLED then old = redis.call('ZRANGE', list, 0, 0) end
  if #old > 0 then
    redis.call('HDEL', key(p, 'outcomes', queue), unpack(old))
    redis.call('ZREM', list, unpack(old))
  end
end

local function note(p, queue, id, state, attempt, entry, why)
  redis.call('HSET', key(p, 'outcomes', queue), id, table.concat({state, attempt, entry, why}, ' '))
  redis.call('PEXPIRE', key(p, 'outcomes', queue), SETTLED_KEPT_MS)
  if state == 'failed' then return end
  local list = state == 'delivered' and key(p, 'delivered', queue) or key(p, 'givenup', queue)
  redis.call('ZADD', list, now_ms(), id)
  redis.call('PEXPIRE', list, SETTLED_KEPT_MS)
  forget_settled(p, queue, list)
end

-- settle: p queue entry attempt pause id state why. Says what became of an attempt: a pause (ms) until the next one, or -1:
-- there is none; no state: there is nothing to tell any more. Somebody who took the event since then is left alone.
local function settle(keys, a)
  local p, queue, entry, attempt, id, state = a[1], a[2], a[3], a[4], a[6], a[7]
  if a[5] == '-1' then
    local is_known = redis.call('ZREM', key(p, 'deliveries', queue), entry) == 1
    redis.call('HDEL', key(p, 'attempts', queue), entry)
    if state == '' then
      redis.call('HDEL', key(p, 'outcomes', queue), id)
    elseif is_known then
      note(p, queue, id, state, attempt, entry, a[8])
    end
  elseif redis.call('HGET', key(p, 'attempts', queue), entry) == attempt then
    redis.call('ZADD', key(p, 'deliveries', queue), 'XX', now_ms() + tonumber(a[5]), entry)
    note(p, queue, id, state, attempt, entry, a[8])
  end
end

local function is_of(entry, tenant)
  return string.match(entry, '^%S+ ([^/]*)/') == tenant
end

-- Reads an outcome: attempt, event and why.
local function parted(outcome)
  return string.match(outcome, '^%S+ (%S+) (%S+ %S+ %S+ %S+ %S+ %S+) (.*)$')
end

-- retell: p queue id tenant line. Has an event told again at once. Returns OK, UNKNOWN or FULL.
local function retell(keys, a)
  local p, queue, id = a[1], a[2], a[3]
  local outcome = redis.call('HGET', key(p, 'outcomes', queue), id)
  if not outcome then return 'UNKNOWN' end
  local attempt, entry, why = parted(outcome)
  if not is_of(entry, a[4]) then return 'UNKNOWN' end
  local is_pending = redis.call('ZSCORE', key(p, 'deliveries', queue), entry)
  if not is_pending and redis.call('ZCARD', key(p, 'deliveries', queue)) >= MOST_DELIVERIES then return 'FULL' end
  audited(p, a[4], 'webhook_redelivered', id, a[5])
  redis.call('ZADD', key(p, 'deliveries', queue), now_ms(), entry)
  redis.call('ZREM', key(p, 'delivered', queue), id)
  redis.call('ZREM', key(p, 'givenup', queue), id)
  note(p, queue, id, 'failed', is_pending and attempt or 0, entry, why)
  return 'OK'
end

-- Adds to `found` how many events of a list of settled ones are a tenant's, and up to `many` as id, time, outcome.
local function look_at(p, queue, list, tenant, many, found)
  local rows, counted, told = redis.call('ZREVRANGE', list, 0, -1, 'WITHSCORES'), 0, {}
  for place = 1, #rows, 2 do
    local outcome = redis.call('HGET', key(p, 'outcomes', queue), rows[place])
    if outcome and is_of(select(2, parted(outcome)), tenant) then
      counted = counted + 1
      if counted <= many then
        for _, part in ipairs({rows[place], rows[place + 1], outcome}) do told[#told + 1] = part end
      end
    end
  end
  found[#found + 1] = counted
  found[#found + 1] = told
end

-- look: p queue tenant many. Shows a tenant's events of a queue, for each state the first `many`. Returns {pending,
-- {entry, time, ...}, delivered, {id, time, outcome, ...}, given up, {id, time, outcome, ...}}.
local function look(keys, a)
  local p, queue, tenant, many = a[1], a[2], a[3], tonumber(a[4])
  local rows, counted, waiting = redis.call('ZRANGE', key(p, 'deliveries', queue), 0, -1, 'WITHSCORES'), 0, {}
  for place = 1, #rows, 2 do
    if is_of(rows[place], tenant) then
      counted = counted + 1
      if counted <= many then
        waiting[#waiting + 1] = rows[place]
        waiting[#waiting + 1] = rows[place + 1]
      end
    end
  end
  local found = {counted, waiting}
  look_at(p, queue, key(p, 'delivered', queue), tenant, many, found)
  look_at(p, queue, key(p, 'givenup', queue), tenant, many, found)
  return found
end
