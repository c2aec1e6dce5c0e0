-- The audit: a chain of lines for each tenant in each partition. A function writes a line together with what it tells of.
-- `audit` lists tenants. Of each, `audit:<tenant>:chain` is the stream of lines, and `audit:<tenant>:head` says of the
-- last one "<number> <ms> <link>", and then the number of the first one that is kept. A line's id is <ms>-<number>; its
-- link is the hash of the link before it and of all that it says.

local AUDIT_AT_ONCE = 100  -- lines that are trimmed together

-- Writes the next line of a chain; `least`: lines with smaller ids go.
local function chain_on(chain, head, event, about, outcome, facts, least)
  head.number, head.ms = head.number + 1, math.max(head.ms, now_ms())
  local id = string.format('%.0f-%.0f', head.ms, head.number)
  head.link = redis.sha1hex(table.concat({head.link, id, event, about, outcome, facts}, ' '))
  local command = least and {'XADD', chain, 'MINID', '=', least} or {'XADD', chain}
  for _, part in ipairs({id, 'event', event, 'about', about, 'outcome', outcome, 'facts', facts, 'link', head.link}) do
    command[#command + 1] = part
  end
  local written = redis.pcall(unpack(command))
  if type(written) == 'table' and written.err then
    if not string.find(written.err, 'equal or smaller', 1, true) then error(written.err) end
    command[least and 6 or 3] = '*'  -- somebody has taken the place: the line is kept, and found out of its place
    redis.call(unpack(command))
  end
end

-- Lets go of the oldest lines, and writes which: the chain can be checked from there on.
local function trim_audit(chain, head)
  local rows = redis.call('XRANGE', chain, '-', '+', 'COUNT', AUDIT_AT_ONCE)
  local last = rows[#rows]
  local ms, number = string.match(last and last[1] or '', '^(%d+)%-(%d+)$')
  if not number then return end
  local facts = string.format('{"by":"","first":%.0f,"through":%s,"link":"%s"}', head.first, number, last[2][10] or '')
  head.first = tonumber(number) + 1
  chain_on(chain, head, 'trimmed', '', '', facts, string.format('%s-%.0f', ms, head.first))
end

-- Writes a line of a tenant. `about`: a task, a key, a tool, ...; `line`: "<how many lines are kept> <outcome> <facts, JSON>";
-- '': none is written.
local function audited(p, tenant, event, about, line)
  local kept, outcome, facts = string.match(line, '^(%d+) (%S*) (.*)$')
  if not kept then return end
  local chain, place = key(p, 'audit', tenant .. ':chain'), key(p, 'audit', tenant .. ':head')
  local known = redis.call('GET', place)
  local number, ms, link, first = string.match(known or '', '^(%d+) (%d+) (%S+) (%d+)$')
  if not known then redis.call('SADD', key(p, 'audit'), tenant) end
  local head = {number = tonumber(number or '0'), ms = tonumber(ms or '0'), link = link or (p .. '/' .. tenant),
    first = tonumber(first or '1')}
  chain_on(chain, head, event, about, outcome, facts)
  if head.number - head.first >= tonumber(kept) + AUDIT_AT_ONCE then trim_audit(chain, head) end
  redis.call('SET', place, string.format('%.0f %.0f %s %.0f', head.number, head.ms, head.link, head.first))
end

-- Of a task, as lines name it: whose it is and which.
local function about_task(ref)
  return string.match(ref, '^[^/]*/(.*)$')
end

local function tenant_of(ref)
  return string.match(ref, '^[^/]*')
end
