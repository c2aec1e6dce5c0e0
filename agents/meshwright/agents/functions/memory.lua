-- Long-term memory: all of a holder's in one slot, `p`. By agent: `memory` holds records by id, `vectors` (by embedder
-- too) what they are found by, `ages` their times; by session, `origin` says what came from it: "agent id embedder", and
-- `seal` is the data key of that, wrapped.

local function vectors_of(p, agent, embedder)
  return key(p, 'vectors', agent .. '/' .. embedder)
end

local function drop_memory(p, agent, id, embedder, session)
  redis.call('ZREM', key(p, 'ages', agent), id)
  redis.call('HDEL', key(p, 'memory', agent), id)
  redis.call('HDEL', vectors_of(p, agent, embedder), id)
  if session ~= '' then
    redis.call('SREM', key(p, 'origin', session), table.concat({agent, id, embedder}, ' '))
    if redis.call('EXISTS', key(p, 'origin', session)) == 0 then redis.call('DEL', seal_of(p, session)) end
  end
end

-- remember: p agent id embedder session most vector record seal; a record begins with "embedder session ". Adds a memory,
-- once; beyond `most` of the agent's the oldest go. Returns the record that stands there now.
local function remember(keys, a)
  local p, agent, id = a[1], a[2], a[3]
  local known = redis.call('HGET', key(p, 'memory', agent), id)
  if known then return known end
  if is_sealed_otherwise(p, a[5], a[9]) then return sealed_otherwise() end
  seal(p, a[5], a[9])
  local now = now_ms()
  local record = table.concat({a[4], a[5] == '' and '-' or a[5], string.format('%.0f', now), a[8]}, ' ')
  redis.call('HSET', key(p, 'memory', agent), id, record)
  redis.call('HSET', vectors_of(p, agent, a[4]), id, a[7])
  redis.call('ZADD', key(p, 'ages', agent), now, id)
  if a[5] ~= '' then redis.call('SADD', key(p, 'origin', a[5]), table.concat({agent, id, a[4]}, ' ')) end
  local surplus = redis.call('ZCARD', key(p, 'ages', agent)) - tonumber(a[6])
  for _, old in ipairs(surplus > 0 and redis.call('ZRANGE', key(p, 'ages', agent), 0, surplus - 1) or {}) do
    local embedder, session = string.match(redis.call('HGET', key(p, 'memory', agent), old) or '', '^(%S+) (%S+) ')
    if embedder then drop_memory(p, agent, old, embedder, session == '-' and '' or session) end
  end
  return record
end

-- unlearn: p session most. Deletes memories that came from a session; returns how many, fewer than `most`: all are gone.
local function unlearn(keys, a)
  local p, gone = a[1], 0
  for _, place in ipairs(redis.call('SRANDMEMBER', key(p, 'origin', a[2]), a[3])) do
    local agent, id, embedder = string.match(place, '^(%S+) (%S+) (%S+)$')
    drop_memory(p, agent, id, embedder, a[2])
    gone = gone + 1
  end
  return gone
end
