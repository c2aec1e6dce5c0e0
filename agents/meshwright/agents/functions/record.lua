-- What a task looks like in the store, and the one way to write to its journal. `key` and `now_ms` stand in front of
-- this text. Everything that must happen at once happens in one function; nothing is written before everything is
-- checked, since Lua does not roll back.
--
-- A task's record is a hash:
--   v                                                               major of the journal's form
--   state     PENDING | RUNNING | PARKED | COMPLETED | FAILED | CANCELLED
--   agent, tenant, hash, request, id, parent, root, depth, call, trace, rank, session     as accepted
--   scopes                                                          of whoever asked for the root task, a JSON array
--   ancestors                                                       agents of the tasks above, the root's first
--   created, queued, started, ended, deadline, expire               store time, ms
--   queue, owner, fence, fences, attempt, barren, poison            ownership
--   seq, blobs, waiting, turn, eager, nudged, cancel, retention     journal, parking, cancellation
--   asks, held, frozen, frozen_at                                   questions to people: see inputs.lua
--   budget, shared, escrow, chunk                                   money: see budget.lua
--   steps, input_tokens, ...                                        counters, this task with its children
-- Where content is encrypted, `request`, `cancel` and events are, and `seal` holds the root's data key, wrapped.
-- Its log is a stream whose ids are 0-<sequence>; an entry holds t (ms), e (event) or b (size of the blob that holds
-- it), and p (path) where it is a descendant's event: "child:sequence,grandchild:sequence", outermost first.

local MAJOR = 1
local INLINE = 65536
local MAX_EVENTS = 10000
local MAX_EVENT_BYTES = 4194304
local MAX_BLOB_BYTES = 33554432

local TERMINAL = {COMPLETED = true, FAILED = true, CANCELLED = true}

local SEALED, SEALING = 255, 38  -- the first byte of what is encrypted, and the bytes that it has grown by

local function bytes_of(payload)
  return #payload - (string.byte(payload, 1) == SEALED and SEALING or 0)
end

local function task(p, ref, ...)
  return redis.call('HMGET', key(p, 'task', ref), ...)
end

local function seal_of(p, name)
  return key(p, 'seal', name ~= '' and name or nil)
end

-- Whether content that was encrypted with a data key may be written to a place: it has that one, or none yet.
local function is_sealed_otherwise(p, name, wrapped)
  local kept = wrapped ~= '' and redis.call('GET', seal_of(p, name))
  return kept and kept ~= wrapped
end

-- Gives a place its data key; '': content is not encrypted.
local function seal(p, name, wrapped)
  if wrapped ~= '' then redis.call('SET', seal_of(p, name), wrapped, 'KEEPTTL') end
end

-- rewrap: wrapped rewrapped. Puts a data key that was wrapped anew in its own place; returns whether it still stood there.
local function rewrap(keys, a)
  if redis.call('GET', keys[1]) ~= a[1] then return 0 end
  redis.call('SET', keys[1], a[2], 'KEEPTTL')
  return 1
end

local function sealed_otherwise()
  return redis.error_reply('SEALED otherwise')
end

local function parent_ref(ref, parent_id)
  return string.match(ref, '^(.*/)[^/]*$') .. parent_id
end

local function holder_of(ref)
  return string.match(ref, '^(.*)/[^/]*$')
end

local function id_of(ref)
  return string.match(ref, '[^/]*$')
end

-- Where a holder's session is listed among its tasks.
local function in_session(ref, session)
  return holder_of(ref) .. '/' .. session
end

-- A tombstone keeps an id that was deleted from being taken again; it does not tell which id that was.
local function bury(p, ref, kept_ms)
  redis.call('SET', key(p, 'tomb', redis.sha1hex(ref)), 1, 'PX', kept_ms)
end

local function is_buried(p, ref)
  return redis.call('EXISTS', key(p, 'tomb', redis.sha1hex(ref))) == 1
end

-- Refuses what a newer version wrote in a form that is not known here.
local function is_newer(p, ref)
  return tonumber(task(p, ref, 'v')[1] or MAJOR) > MAJOR
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
  local step = id_of(ref) .. ':' .. sequence
  return path == '' and step or step .. ',' .. path
end

-- Writes one entry and hands it to followers; returns its sequence.
local function write(p, ref, path, payload, now)
  local sequence = redis.call('HINCRBY', key(p, 'task', ref), 'seq', 1)
  local entry = {'t', now}
  local frame = string.format('%d %d %s\n', sequence, now, path)
  if path ~= '' then entry[3] = 'p'; entry[4] = path end
  if bytes_of(payload) > INLINE then
    redis.call('HSET', key(p, 'blob', ref), sequence, payload)
    redis.call('HINCRBY', key(p, 'task', ref), 'blobs', bytes_of(payload))
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

local function slice(args, from, many)
  local part = {}
  for i = from, from + many - 1 do part[#part + 1] = args[i] end
  return part
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
    if bytes_of(payload) > MAX_EVENT_BYTES then return false end
    if bytes_of(payload) > INLINE then large = large + bytes_of(payload) end
  end
  for _, here in ipairs(lineage(p, ref)) do
    local facts = task(p, here, 'seq', 'blobs')
    if tonumber(facts[1] or '0') + #payloads > MAX_EVENTS then return false end
    if large > 0 and tonumber(facts[2] or '0') + large > MAX_BLOB_BYTES then return false end
  end
  return true
end
