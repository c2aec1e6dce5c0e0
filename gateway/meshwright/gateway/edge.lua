-- The edge's own rules: who may call from where, which cluster serves a path, and two statuses that a transcoder
-- cannot give. DEFAULT_AGENT, HOSTS, ORIGINS, METHODS, NAMES_TRACES, status.lua, callers.lua and events.lua stand in front of this
-- text.

local function host_of(authority)
  if authority == nil then return '' end
  return string.match(authority, '^(%[.*%]):?%d*$') or string.match(authority, '^([^:]*):?%d*$') or ''
end

local function refuse(handle, http_status, grpc_code, reason, message)
  local content_type = handle:headers():get('content-type') or ''
  local request_id = handle:headers():get('x-request-id')
  if string.sub(content_type, 1, 16) == 'application/grpc' then
    handle:respond({[':status'] = '200', ['content-type'] = 'application/grpc', ['grpc-status'] = tostring(grpc_code),
      ['grpc-message'] = message, ['grpc-status-details-bin'] = status(handle, grpc_code, reason, message, request_id),
      ['x-mesh-reason'] = reason}, '')
    return
  end
  handle:headers():replace('x-edge-reason', reason)  -- from here the reply takes the form of all other errors
  handle:respond({[':status'] = tostring(http_status)}, message)
end

-- A web page of another site must not drive this mesh: neither by a simple request nor by a name that it rebinds.
local function is_refused(handle)
  local headers = handle:headers()
  local authority = headers:get(':authority')
  if not HOSTS[host_of(authority)] then
    refuse(handle, 403, 7, 'HOST_REFUSED', 'this edge answers for its own host names only')
    return true
  end
  local origin = headers:get('origin')
  if origin ~= nil and not ORIGINS[origin] and string.match(origin, '^https?://(.+)$') ~= authority then
    refuse(handle, 403, 7, 'ORIGIN_REFUSED', 'pages of other origins may not call this edge')
    return true
  end
  local content_type = headers:get('content-type') or ''
  local is_grpc = string.match(content_type, '^application/grpc')
  local is_post = headers:get(':method') == 'POST'
  if is_post and not (is_grpc or string.match(content_type, '^application/json')) then
    refuse(handle, 415, 3, 'CONTENT_TYPE_REFUSED', 'send content-type: application/json')
    return true
  end
  if is_grpc and not is_post then  -- a server resets such a stream, which would be tried again and again
    refuse(handle, 415, 3, 'CONTENT_TYPE_REFUSED', 'gRPC calls are sent by POST')
    return true
  end
  return false
end

-- gRPC's own headers. A server keeps the values of all calls of a connection in one table, so that one that it cannot
-- read fails calls of others too: nothing unreadable passes. Names in grpc- and lb- are gRPC's; requests have these.
local ENCODINGS = {identity = true, gzip = true, deflate = true}

local LAST_DIGIT = {[0] = '', [2] = '[AQgw]$', [3] = '[AEIMQUYcgkosw048]$'}  -- bits beyond the last byte are zero

local function is_base64(value)
  local digits, padding = string.match(value, '^([%w+/]*)(=*)$')
  local last = digits and LAST_DIGIT[#digits % 4]
  return last and string.match(digits, last) and (padding == '' or (#digits + #padding) % 4 == 0 and #padding <= 2)
end

local READABLE = {
  ['grpc-accept-encoding'] = function() return true end,
  ['grpc-encoding'] = function(value) return ENCODINGS[value] end,
  ['grpc-previous-rpc-attempts'] = function(value) return #value <= 3 and string.match(value, '^%d+$') end,
  ['grpc-tags-bin'] = is_base64,
  ['grpc-timeout'] = function(value) return #value <= 9 and string.match(value, '^%d+[HMSmun]$') end,
  ['grpc-trace-bin'] = is_base64,
}

-- Drops what means nothing in this request, and refuses what a server could not read.
local function is_unreadable(handle)
  local headers = handle:headers()
  local is_grpc = string.match(headers:get('content-type') or '', '^application/grpc')
  local dropped, unreadable = {}, nil
  local timeout = string.match(headers:get('x-edge-timeout') or '', '^=(.*)$')  -- grpc-timeout as it came
  headers:remove('x-edge-timeout')
  headers:remove('grpc-timeout')
  if timeout then headers:replace('grpc-timeout', timeout) end
  for name, value in pairs(headers) do
    local is_own = string.match(name, '^grpc%-') or string.match(name, '^lb%-')
    local is_binary = string.match(name, '%-bin$')
    local reads = READABLE[name] or (is_binary and not is_own and is_base64)
    if not string.match(name, '^:?[%l%d_.-]+$') then  -- HTTP has more letters in names than gRPC
      dropped[#dropped + 1] = name
    elseif (is_own or is_binary) and not (is_grpc and reads) then
      dropped[#dropped + 1] = name
    elseif reads and not reads(value) then
      unreadable = name
    end
  end
  if unreadable then
    refuse(handle, 400, 3, 'INVALID_REQUEST', 'the header ' .. unreadable .. ' has a value that gRPC does not know')
    return true
  end
  for _, name in ipairs(dropped) do headers:remove(name) end
  return false
end

-- A client of HTTP says how long it waits in seconds, 2.5 or 2.5s; a call of gRPC has grpc-timeout for that.
local MOST_SECONDS = 86400

local function has_bad_timeout(handle)
  local headers = handle:headers()
  local value = headers:get('x-request-timeout')
  if value == nil then return false end
  headers:remove('x-request-timeout')
  if string.match(headers:get('content-type') or '', '^application/grpc') then return false end
  local seconds = #value <= 12 and tonumber(string.match(value, '^(%d+%.?%d*)s?$'))
  local milliseconds = seconds and seconds <= MOST_SECONDS and math.floor(seconds * 1000) or 0
  if milliseconds < 1 then
    refuse(handle, 400, 3, 'INVALID_REQUEST', 'x-request-timeout is a number of seconds up to 86400, such as 2.5')
    return true
  end
  headers:replace('grpc-timeout', string.format('%dm', milliseconds))
  return false
end

local REGISTRY_RPC = {['AgentDirectoryService/GetAgent'] = true, ['AgentDirectoryService/ListAgents'] = true}
local BY_AGENT = {run = true, steps = true, tasks = true, health = true}

local function cluster_for(path, agent)
  local id, verb = string.match(path, '^/v1/agents/([a-z0-9-]+)/(%a+)$')
  if id and BY_AGENT[verb] then return 'agent-' .. id end
  if path == '/run' or path == '/steps' or path == '/tasks' then return agent end
  if string.match(path, '^/agents%.v1%.AgentService/') or path == '/agents.v1.TaskService/SubmitTask' then return agent end
  local service = string.match(path, '^/agents%.v1%.(%a+)/')
  if service == 'TaskService' or service == 'SessionService' or service == 'WebhookService' then return 'agents' end
  if string.match(path, '^/v1/tasks') or string.match(path, '^/tasks/') or path == '/v1/costs' then return 'agents' end
  if string.match(path, '^/v1/sessions') or string.match(path, '^/v1/webhooks/') then return 'agents' end
  if path == '/v1/agents' or string.match(path, '^/v1/agents/[^/]+$') then return 'registry' end
  if string.match(path, '^/v1/tools') then return 'registry' end
  local rpc = string.match(path, '^/registry%.v1%.(.+)$')
  if rpc and (string.match(rpc, '^ToolRegistryService/') or REGISTRY_RPC[rpc]) then return 'registry' end
  if path == '/' or path == '/ready' or path == '/openapi.json' or path == '/docs' then return 'gateway' end
  if string.match(path, '^/assets/') then return 'gateway' end
  if string.match(path, '^/gateway%.v1%.') or string.match(path, '^/grpc%.health%.v1%.Health/') then return 'gateway' end
  return 'none'
end

-- W3C's trace context: the trace that a request is a part of; nil: services do not take it for one either.
local function trace_of(value)
  local pattern = '^([%da-f][%da-f])%-([%da-f]+)%-([%da-f]+)%-[%da-f][%da-f](.*)$'
  local version, trace, span, rest = string.match(value, pattern)
  if trace == nil or #trace ~= 32 or #span ~= 16 or version == 'ff' then return nil end
  if rest ~= '' and (version == '00' or string.sub(rest, 1, 1) ~= '-') then return nil end
  return string.match(trace, '[^0]') and string.match(span, '[^0]') and trace
end

-- Names in the log the trace that whoever serves the call is in. Where its caller is in none, that process begins it,
-- and decides by its id whether it is kept: the last half has random digits of the request's id alone.
local function name_trace(handle, headers)
  local trace = trace_of(headers:get('traceparent') or '')
  if trace == nil then
    local digits = string.gsub(headers:get('x-request-id') or '', '-', '')
    trace = string.sub(digits, 2) .. string.sub(digits, 1, 1)
    headers:replace('x-mesh-trace', trace)
  end
  handle:streamInfo():dynamicMetadata():set('meshwright', 'trace', trace)
end

function envoy_on_request(handle)
  if is_refused(handle) or is_unreadable(handle) or has_bad_timeout(handle) then return end
  local headers = handle:headers()
  local path = string.match(headers:get(':path'), '^[^?]*')
  local named = string.match(headers:get('x-agent-id') or '', '^[a-z][a-z0-9-]*$')
  local cluster = cluster_for(path, 'agent-' .. (named or DEFAULT_AGENT))
  local is_grpc = string.match(headers:get('content-type') or '', '^application/grpc')
  if is_grpc and not METHODS[path] then cluster = 'none' end  -- each name that passes is a series of the metrics
  headers:replace('x-agent-cluster', cluster)
  if NAMES_TRACES and cluster ~= 'none' then name_trace(handle, headers) end
  if KNOWN_MS > 0 and cluster ~= 'gateway' then recognise(handle, headers) end
  if headers:get(':method') == 'POST' and (path == '/tasks' or string.match(path, '^/v1/agents/[^/]+/tasks$')) then
    handle:streamInfo():dynamicMetadata():set('meshwright', 'accepts', true)
  end
  local is_sse = string.find(headers:get('accept') or '', 'text/event-stream', 1, true)
  if is_sse and string.match(path, '/steps$') then
    handle:streamInfo():dynamicMetadata():set('meshwright', 'numbers', true)
  end
  handle:clearRouteCache()
end

local RATE = {'x-ratelimit-remaining', 'x-ratelimit-limit', 'x-ratelimit-reset'}

-- Each bucket that has counted a call says how much is left: the caller reads of the one that is nearest to its end.
local function tell_nearest(headers)
  local nearest, least = 0, math.huge
  for at = 0, headers:getNumValues(RATE[1]) - 1 do
    local left = tonumber(headers:getAtIndex(RATE[1], at)) or math.huge
    if left < least then nearest, least = at, left end
  end
  for _, name in ipairs(RATE) do
    local value = headers:getAtIndex(name, nearest)
    headers:remove(name)
    if value then headers:add(name, value) end
  end
end

function envoy_on_response(handle)
  local headers = handle:headers()
  if headers:getNumValues(RATE[1]) > 1 then tell_nearest(headers) end
  local reason = headers:get('x-mesh-reason')
  if reason then
    headers:remove('x-mesh-reason')
    handle:streamInfo():dynamicMetadata():set('meshwright', 'reason', reason)
  end
  local noted = handle:streamInfo():dynamicMetadata():get('meshwright')
  if headers:get('x-mesh-stream-end') ~= nil then
    headers:remove('x-mesh-stream-end')
    headers:replace(':status', '204')
    headers:remove('content-type')
  elseif noted and noted.accepts and headers:get(':status') == '200' then
    headers:replace(':status', '202')
  end
  if noted and noted.caller then remember(handle, noted.caller) end
  if noted and noted.numbers and headers:get('content-type') == 'text/event-stream' then number_events(handle) end
end
