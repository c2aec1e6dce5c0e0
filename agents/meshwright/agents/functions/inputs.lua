-- Questions to people. A question stands in `inputs` of the task that asks and of its living ancestors, as "<task id>
-- <digest or -> <question>"; `asks` counts them. While the task that asks is parked it is held: its clock and that of
-- its ancestors stand still (`frozen` counts the held tasks of a tree below and including a task).

local FROZEN_MS = 30 * 86400000  -- so long nobody looks after a task at the most

local function lapse(ref, input_id)
  return ref .. ' ' .. input_id
end

-- Shows questions; `asked` is a flat list of id, digest, when it lapses (ms), question.
local function ask(p, ref, asked)
  for i = 1, #asked, 4 do
    local id = asked[i]
    local entry = id_of(ref) .. ' ' .. (asked[i + 1] == '' and '-' or asked[i + 1]) .. ' ' .. asked[i + 3]
    local line = lineage(p, ref)
    announce(p, line[#line], 'input_requested', ref .. ' ' .. id .. ' ' .. task(p, ref, 'seq')[1])
    for _, here in ipairs(line) do
      if redis.call('HSET', key(p, 'inputs', here), id, entry) == 1 then
        redis.call('HINCRBY', key(p, 'task', here), 'asks', 1)
        redis.call('ZADD', key(p, 'inbox', holder_of(here)), task(p, here, 'created')[1], id_of(here))
      end
    end
    redis.call('ZADD', key(p, 'lapses'), asked[i + 2], lapse(ref, id))
  end
end

local function forget_input(p, here, id)
  if redis.call('HDEL', key(p, 'inputs', here), id) == 0 then return end
  if redis.call('HINCRBY', key(p, 'task', here), 'asks', -1) <= 0 then
    redis.call('ZREM', key(p, 'inbox', holder_of(here)), id_of(here))
  end
end

-- Stops the clocks of a task and its ancestors.
local function freeze(p, ref, now)
  redis.call('HSET', key(p, 'task', ref), 'held', 1)
  for _, here in ipairs(lineage(p, ref)) do
    if redis.call('HINCRBY', key(p, 'task', here), 'frozen', 1) == 1 then
      redis.call('HSET', key(p, 'task', here), 'frozen_at', now)
      redis.call('ZADD', key(p, 'deadlines'), now + FROZEN_MS, here)
    end
  end
end

-- Lets a clock go on that `many` held tasks had stopped: the time between did not count.
local function unfreeze(p, here, many, now)
  if redis.call('HINCRBY', key(p, 'task', here), 'frozen', -many) > 0 then return end
  local facts = task(p, here, 'deadline', 'frozen_at')
  if not facts[2] then return end
  local deadline = tonumber(facts[1]) + now - tonumber(facts[2])
  redis.call('HSET', key(p, 'task', here), 'deadline', deadline)
  redis.call('HDEL', key(p, 'task', here), 'frozen_at')
  redis.call('ZADD', key(p, 'deadlines'), deadline, here)
end

local function thaw(p, ref, now)
  if redis.call('HDEL', key(p, 'task', ref), 'held') == 0 then return end
  for _, here in ipairs(lineage(p, ref)) do unfreeze(p, here, 1, now) end
end

-- Takes back all that a task which ends, or its descendants, ask of people.
local function withdraw_inputs(p, ref, now)
  local facts = task(p, ref, 'asks', 'frozen')
  if tonumber(facts[1] or '0') == 0 and tonumber(facts[2] or '0') == 0 then return end
  local line = lineage(p, ref)
  for _, id in ipairs(redis.call('HKEYS', key(p, 'inputs', ref))) do
    redis.call('ZREM', key(p, 'lapses'), lapse(ref, id))
    for _, here in ipairs(line) do forget_input(p, here, id) end
  end
  local many = tonumber(facts[2] or '0')
  redis.call('HDEL', key(p, 'task', ref), 'held')
  for i = 1, many > 0 and #line or 0 do unfreeze(p, line[i], many, now) end
end
