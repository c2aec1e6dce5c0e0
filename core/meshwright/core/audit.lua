-- The audit: a chain of lines for each tenant in each partition. A function writes a line together with what it tells of.
-- `audit::tenants` lists tenants. Of each, `audit:<tenant>:lines` is the list of lines, and `audit:<tenant>:count` how many
-- there ever were. A line is "<link> <ms>-<number> <event> <about> <outcome> <facts, JSON>"; its link is the hash of the link
-- before it and of all that it says. What somebody has put there that is no line has the hash of itself for a link.
-- Whoever writes lines may run no command that deletes or replaces one; see store_user.py.

local AHEAD_MS = 86400000  -- a line that is further ahead of the clock is not followed: its time is no true one

local function audit_key(p, tenant, what)
  return key(p, 'audit', tenant .. ':' .. what)
end

-- Asks for something of a chain; a key that holds something else is told as what it is.
local function of_chain(...)
  local reply = redis.pcall(...)
  if type(reply) ~= 'table' or not reply.err then return reply end
  if string.find(reply.err, 'WRONGTYPE', 1, true) or string.find(reply.err, 'not an integer', 1, true) then
    error({err = 'AUDIT its key holds no chain'})
  end
  error(reply)
end

-- Reads a line: its link, its time, and its number; nil: it is none.
local function read_line(text)
  local link, ms, number = string.match(text, '^([%da-f]+) (%d+)%-(%d+) [^ ]+ [^ ]* [^ ]* ')
  if link and #link == 40 and #ms < 16 and #number < 16 then return link, tonumber(ms), tonumber(number) end
  return redis.sha1hex(text), 0, nil
end

-- Writes the next line of a chain; `outcome` and `facts` are parted by a space.
local function chain_on(p, tenant, event, about, outcome_and_facts)
  local lines = audit_key(p, tenant, 'lines')
  local last = of_chain('LINDEX', lines, -1)
  local link, ms, now = p .. '/' .. tenant, 0, now_ms()
  if last then link, ms = read_line(last) end
  if ms < now or ms > now + AHEAD_MS then ms = now end
  of_chain('SADD', key(p, 'audit', ':tenants'), tenant)  -- each time: nobody can keep a chain off the list
  local number = of_chain('INCR', audit_key(p, tenant, 'count'))
  local said = string.format('%.0f-%.0f %s %s %s', ms, number, event, about, outcome_and_facts)
  of_chain('RPUSH', lines, redis.sha1hex(link .. ' ' .. said) .. ' ' .. said)
end

-- Writes a line of a tenant. `about`: a task, a key, a tool, ...; `line`: "<outcome> <facts, JSON>"; '': none is written.
local function audited(p, tenant, event, about, line)
  if line ~= '' then chain_on(p, tenant, event, about, line) end
end

-- Of a task, as lines name it: whose it is and which.
local function about_task(ref)
  return string.match(ref, '^[^/]*/(.*)$')
end

local function tenant_of(ref)
  return string.match(ref, '^[^/]*')
end
