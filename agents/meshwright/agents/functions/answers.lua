-- Answers from before: all of a tenant's in one slot, `p`. `answer` is one, by its id, and ends by itself. `answers` holds
-- their ends by id, `answers:about` "bytes scope origin" of each, `answers:bytes` the sum. By scope, `vectors` is what they
-- are found by and `ages` are their ends; by holder and session, `origin` says what came from it, and `seal` is the data
-- key of that, wrapped.

local function drop_answer(p, id)
  redis.call('DEL', key(p, 'answer', id))
  redis.call('ZREM', key(p, 'answers'), id)
  local about = redis.call('HGET', key(p, 'answers', 'about'), id)
  if not about then return end
  local bytes, scope, origin = string.match(about, '^(%d+) (%S+) (%S+)$')
  redis.call('HDEL', key(p, 'answers', 'about'), id)
  redis.call('HDEL', key(p, 'vectors', scope), id)
  redis.call('ZREM', key(p, 'ages', scope), id)
  redis.call('SREM', key(p, 'origin', origin), id)
  if origin ~= '-' and redis.call('EXISTS', key(p, 'origin', origin)) == 0 then redis.call('DEL', seal_of(p, origin)) end
  if redis.call('DECRBY', key(p, 'answers', 'bytes'), bytes) <= 0 then redis.call('DEL', key(p, 'answers', 'bytes')) end
end

local function drop_first(p, ends)
  drop_answer(p, redis.call('ZRANGE', ends, 0, 0)[1])
end

local function outlive(name, life)
  if redis.call('PTTL', name) < life then redis.call('PEXPIRE', name, life) end
end

-- retain: p id scope origin life_ms most most_bytes most_alike vector record seal; origin "-": none; vector "": it is found by
-- its id alone. Keeps an answer in the place of the one that has its id; beyond the bounds those go that end first.
local function retain(keys, a)
  local p, id, scope, origin, life = a[1], a[2], a[3], a[4], tonumber(a[5])
  local now, bytes = now_ms(), #a[9] + #a[10]
  local ends, about, sum = key(p, 'answers'), key(p, 'answers', 'about'), key(p, 'answers', 'bytes')
  if is_sealed_otherwise(p, origin, a[11]) then return sealed_otherwise() end
  drop_answer(p, id)
  for _, old in ipairs(redis.call('ZRANGE', ends, '-inf', now, 'BYSCORE', 'LIMIT', 0, 100)) do drop_answer(p, old) end
  while redis.call('ZCARD', ends) >= tonumber(a[6]) do drop_first(p, ends) end
  while redis.call('ZCARD', ends) > 0 and tonumber(redis.call('GET', sum) or 0) + bytes > tonumber(a[7]) do
    drop_first(p, ends)
  end
  seal(p, origin, a[11])  -- only now: what made room may have taken it away
  redis.call('SET', key(p, 'answer', id), a[10], 'PX', life)
  redis.call('ZADD', ends, now + life, id)
  redis.call('HSET', about, id, table.concat({bytes, scope, origin}, ' '))
  redis.call('INCRBY', sum, bytes)
  local indexes = {ends, about, sum}
  if a[11] ~= '' then indexes[#indexes + 1] = seal_of(p, origin) end
  if a[9] ~= '' then
    local vectors, ages = key(p, 'vectors', scope), key(p, 'ages', scope)
    while redis.call('ZCARD', ages) >= tonumber(a[8]) do drop_first(p, ages) end
    redis.call('HSET', vectors, id, a[9])
    redis.call('ZADD', ages, now + life, id)
    indexes[#indexes + 1], indexes[#indexes + 2] = vectors, ages
  end
  if origin ~= '-' then
    redis.call('SADD', key(p, 'origin', origin), id)
    indexes[#indexes + 1] = key(p, 'origin', origin)
  end
  for _, name in ipairs(indexes) do outlive(name, life) end
end

-- disown: p origin most. Deletes answers that came from a session; returns how many, fewer than `most`: all are gone.
local function disown(keys, a)
  local found = redis.call('SRANDMEMBER', key(a[1], 'origin', a[2]), a[3])
  for _, id in ipairs(found) do
    drop_answer(a[1], id)
    redis.call('SREM', key(a[1], 'origin', a[2]), id)  -- one that had no other trace
  end
  if redis.call('EXISTS', key(a[1], 'origin', a[2])) == 0 then redis.call('DEL', seal_of(a[1], a[2])) end
  return #found
end
