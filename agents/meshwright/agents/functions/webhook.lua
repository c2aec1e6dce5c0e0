-- Webhooks: what hosts of agents want to be told. `hooks` holds, by agent, "<queue> <events> <tenants>" for each endpoint,
-- lists with commas, '*' for every tenant. `deliveries` of a queue are its events by the time (ms) of their next attempt:
-- "<event> <ref> <ref of the task that asks> <input id> <sequence> <ms>". `attempts` counts how often each was tried,
-- `dropped` the events that found their queue full; `gone` are queues whose endpoint wants nothing any more.

local MOST_DELIVERIES = 10000

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
  redis.call('UNLINK', key(p, 'deliveries', queue), key(p, 'attempts', queue))
  redis.call('HDEL', key(p, 'dropped'), queue)
  return many
end

-- hook: p agent hooks. Sets the endpoints of an agent; those that are gone stay away, and queues that are not named any
-- more are deleted. Returns how many events were in these.
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

-- settle: p queue entry attempt pause. Says what became of an attempt: a pause (ms) until the next one, or -1: there is
-- none. Somebody who took the event since then is left alone.
local function settle(keys, a)
  local p, queue, entry = a[1], a[2], a[3]
  if a[5] == '-1' then
    redis.call('ZREM', key(p, 'deliveries', queue), entry)
    redis.call('HDEL', key(p, 'attempts', queue), entry)
  elseif redis.call('HGET', key(p, 'attempts', queue), entry) == a[4] then
    redis.call('ZADD', key(p, 'deliveries', queue), 'XX', now_ms() + tonumber(a[5]), entry)
  end
end
