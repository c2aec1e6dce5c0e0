-- Server-Sent Events of steps: the transcoder writes `data:` alone. What is durable gets its sequence as `id:`, by which
-- a client resumes; passing frames get none, which leaves the client's cursor alone.

local DURABLE = '^data: {"task_id":"[^"]*","sequence":([1-9]%d*)'

-- The transcoder hands on whole events; JSON holds no line feed, so that an empty line ends one.
local function numbered(text)
  local parts, at = {}, 1
  while at <= #text do
    local _, ends = string.find(text, '\n\n', at, true)
    local sequence = string.match(text, DURABLE, at)
    if sequence then parts[#parts + 1] = 'id: ' .. sequence .. '\n' end
    parts[#parts + 1] = string.sub(text, at, ends)
    at = (ends or #text) + 1
  end
  return table.concat(parts)
end

local function number_events(handle)
  for chunk in handle:bodyChunks() do
    local length = chunk:length()
    if length > 0 then chunk:setBytes(numbered(chunk:getBytes(0, length))) end
  end
end
