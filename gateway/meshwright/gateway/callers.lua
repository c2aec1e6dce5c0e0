-- Callers of a moment ago: what the gateway's process said of a credential holds for KNOWN_MS, so that it is not asked
-- about every call of a busy one. Nothing is kept of credentials that were refused. KNOWN_MS stands in front of this
-- text; 0: nobody is asked.

local MOST_KNOWN = 4096
local AUTHORIZATION = 'envoy.filters.http.ext_authz'
local known, older, count, turned = {}, {}, 0, 0  -- in two tables: the older one goes with all that is in it

local function turn(now)
  if now >= turned + KNOWN_MS or now < turned or count >= MOST_KNOWN then
    known, older, count, turned = {}, known, 0, now
  end
end

local function credential_of(headers)
  local key, token = headers:get('x-api-key'), headers:get('authorization')
  if key == nil and token == nil then return nil end
  if headers:getNumValues('x-api-key') > 1 or headers:getNumValues('authorization') > 1 then return nil end
  return (key or '') .. '\n' .. (token or '')
end

-- Says who is calling where that is known; else notes what is to be remembered once it is.
local function recognise(handle, headers)
  local credential = credential_of(headers)
  if credential == nil then return end
  local now = handle:timestamp()
  turn(now)
  local one = known[credential] or older[credential]
  local noted = handle:streamInfo():dynamicMetadata()
  if one and one.asked <= now and now < one.asked + KNOWN_MS then
    for name, value in pairs(one.headers) do headers:replace(name, value) end
    headers:remove('x-api-key')
    headers:remove('authorization')
    noted:set('meshwright', 'known', true)
  else
    noted:set('meshwright', 'caller', {credential = credential, asked = now})
  end
end

local function remember(handle, caller)
  local said = handle:streamInfo():dynamicMetadata():get(AUTHORIZATION)
  if not (said and said.headers) or handle:timestamp() >= caller.asked + KNOWN_MS then return end
  if known[caller.credential] == nil then count = count + 1 end
  known[caller.credential] = {asked = caller.asked, headers = said.headers}
end
