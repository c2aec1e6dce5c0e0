-- Money, in millionths of a US dollar. A record's `budget` is what a task may cost with its children, `cost_micros` what
-- it has cost, `reserved_micros` what calls under way may cost at the most. What is reserved is held against the budgets
-- of the task and of all above it, in the script that reserves it: never is more set aside than there is.
--
-- Budgets that several trees share (of a session, a user's, a tenant's, the mesh's day) lie in slots of their own, so a
-- tree takes a chunk from each, spends from it (`escrow` in the root's record, `chunk` its number), and returns the rest.
-- `shared` of a record names them as they were when the tree was accepted: "session user_day tenant_day global_day".

local LATE_MS = 900000  -- so long a tree that has returned its rest is known: it takes nothing any more
local MOST_NAMES = 1000  -- rows of one grouping of one day

local function root_of(p, ref)
  return parent_ref(ref, task(p, ref, 'root')[1])
end

-- What events take of the money that is left: new reservations, and costs beyond what was reserved for them.
local function taken_by(counters)
  local taken = 0
  for i = 1, #counters, 2 do
    if counters[i] == 'reserved_micros' or counters[i] == 'cost_micros' then taken = taken + tonumber(counters[i + 1]) end
  end
  return taken
end

-- Takes a chunk that was claimed for the tree into the root's record, once; `chunk`: its number, `micros`: its size.
local function take_in(p, root, chunk, micros)
  local facts = task(p, root, 'chunk', 'escrow')
  if chunk <= tonumber(facts[1] or '0') then return tonumber(facts[2] or '0') end
  redis.call('HSET', key(p, 'task', root), 'chunk', chunk)
  return redis.call('HINCRBY', key(p, 'task', root), 'escrow', micros)
end

-- What keeps a task from writing events that take money, or nil. `escrow`: '' where it shares no budget, else "chunk micros", "0 0" where it
-- brings none. Returns {'short', what is left} | {'chunk', number of the next one, what it needs to hold}.
local function shortage(p, ref, counters, escrow)
  local wanted = taken_by(counters)
  if wanted <= 0 then return nil end
  for _, here in ipairs(lineage(p, ref)) do
    local facts = task(p, here, 'budget', 'cost_micros', 'reserved_micros')
    local left = facts[1] and tonumber(facts[1]) - tonumber(facts[2] or '0') - tonumber(facts[3] or '0')
    if left and left < wanted then return {'short', left} end
  end
  if escrow == '' then return nil end
  local root, given = root_of(p, ref), words(escrow)
  local held = take_in(p, root, tonumber(given[1]), tonumber(given[2]))
  local facts = task(p, root, 'cost_micros', 'reserved_micros', 'chunk')
  local missing = tonumber(facts[1] or '0') + tonumber(facts[2] or '0') + wanted - held
  if missing <= 0 then return nil end
  redis.call('HSET', key(p, 'task', root), 'escrow', held)  -- from now on its end returns what was claimed
  return {'chunk', tonumber(facts[3] or '0') + 1, missing}
end

-- Charges in full what is still set aside for a task that ends, and for its descendants: nobody will count it any more.
local function charge(p, ref, open)
  if open == 0 then return end
  for _, here in ipairs(lineage(p, ref)) do
    local record_key = key(p, 'task', here)
    redis.call('HINCRBY', record_key, 'reserved_micros', -open)
    redis.call('HINCRBY', record_key, 'cost_micros', open)
    redis.call('HINCRBY', record_key, 'estimated_cost_micros', open)
  end
end

-- take: p tree chunk need most limit kept_ms. Takes a chunk for a tree from a shared budget, once: `need` to `most`.
-- Returns {granted, taken by all}; 0: too little is left, or the tree has returned its rest already.
local function take(keys, a)
  local p, tree, chunk = a[1], a[2], tonumber(a[3])
  local held = words(redis.call('HGET', key(p, 'escrow', 'trees'), tree) or '0 0 0')  -- chunk, its size, size of all
  local taken = tonumber(redis.call('GET', key(p, 'escrow')) or '0')
  if tonumber(held[1]) >= chunk then return {tonumber(held[2]), taken} end
  if redis.call('ZSCORE', key(p, 'escrow', 'late'), tree) then return {0, taken} end
  local granted = math.min(tonumber(a[5]), tonumber(a[6]) - taken)
  if granted < tonumber(a[4]) then return {0, taken} end
  redis.call('HSET', key(p, 'escrow', 'trees'), tree, string.format('%d %d %d', chunk, granted, held[3] + granted))
  taken = redis.call('INCRBY', key(p, 'escrow'), granted)
  for _, name in ipairs({false, 'trees'}) do redis.call('PEXPIRE', key(p, 'escrow', name), a[7]) end
  return {granted, taken}
end

-- give_back: p tree spent. Ends a tree's part in a shared budget: what it took and did not spend is free again; once.
local function give_back(keys, a)
  local p, tree, now = a[1], a[2], now_ms()
  redis.call('ZREMRANGEBYSCORE', key(p, 'escrow', 'late'), '-inf', now - LATE_MS)
  redis.call('ZADD', key(p, 'escrow', 'late'), now, tree)
  redis.call('PEXPIRE', key(p, 'escrow', 'late'), LATE_MS)
  local held = redis.call('HGET', key(p, 'escrow', 'trees'), tree)
  if not held then return 0 end
  redis.call('HDEL', key(p, 'escrow', 'trees'), tree)
  redis.call('INCRBY', key(p, 'escrow'), tonumber(a[3]) - tonumber(words(held)[3]))
  return 1
end

-- count: p tree kept_ms (row cost estimated tokens)... Adds what a tree has cost to the sums of a day, once.
local function count(keys, a)
  local p, tree, costs = a[1], a[2], key(a[1], 'costs')
  if redis.call('ZADD', key(p, 'costs', 'counted'), 'NX', now_ms(), tree) == 0 then return 0 end
  redis.call('ZREMRANGEBYRANK', key(p, 'costs', 'counted'), 0, -10001)  -- an entry is repeated soon or never
  for i = 4, #a, 4 do
    local grouping, row = string.match(a[i], '^(%S+) '), a[i]
    local rows = key(p, 'costs', 'rows')
    if redis.call('HEXISTS', costs, row .. ' c') == 0 and redis.call('HINCRBY', rows, grouping, 1) > MOST_NAMES then
      row = grouping .. ' *'
    end
    for j, name in ipairs({'c', 'e', 't'}) do redis.call('HINCRBY', costs, row .. ' ' .. name, a[i + j]) end
  end
  for _, name in ipairs({false, 'counted', 'rows'}) do redis.call('PEXPIRE', key(p, 'costs', name), a[3]) end
  return 1
end

-- unname: p row. Takes a name out of the sums of a day: what stood under it stands under none.
local function unname(keys, a)
  local costs, row = key(a[1], 'costs'), a[2]
  local grouping = string.match(row, '^(%S+) ')
  for _, name in ipairs({'c', 'e', 't'}) do
    local sum = redis.call('HGET', costs, row .. ' ' .. name)
    if sum then redis.call('HINCRBY', costs, grouping .. ' * ' .. name, sum) end
    redis.call('HDEL', costs, row .. ' ' .. name)
  end
end
