-- The edge's own rules: who may call from where, which cluster serves a path, and two statuses that a transcoder
-- cannot give. DEFAULT_AGENT and HOSTS stand in front of this text.

local function host_of(authority)
  if authority == nil then return '' end
  return string.match(authority, '^(%[.*%]):?%d*$') or string.match(authority, '^([^:]*):?%d*$') or ''
end

local function refuse(handle, status, grpc_code, reason, message)
  local content_type = handle:headers():get('content-type') or ''
  if string.sub(content_type, 1, 16) == 'application/grpc' then
    handle:respond({[':status'] = '200', ['content-type'] = 'application/grpc', ['grpc-status'] = tostring(grpc_code),
      ['grpc-message'] = message}, '')
    return
  end
  handle:headers():replace('x-edge-reason', reason)  -- from here the reply takes the form of all other errors
  handle:respond({[':status'] = tostring(status)}, message)
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
  if origin ~= nil and string.match(origin, '^https?://(.+)$') ~= authority then
    refuse(handle, 403, 7, 'ORIGIN_REFUSED', 'pages of other origins may not call this edge')
    return true
  end
  local content_type = headers:get('content-type') or ''
  local is_known = string.match(content_type, '^application/json') or string.match(content_type, '^application/grpc')
  if headers:get(':method') == 'POST' and not is_known then
    refuse(handle, 415, 3, 'CONTENT_TYPE_REFUSED', 'send content-type: application/json')
    return true
  end
  return false
end

local REGISTRY_RPC = {['AgentDirectoryService/GetAgent'] = true, ['AgentDirectoryService/ListAgents'] = true}
local BY_AGENT = {run = true, steps = true, tasks = true, health = true}

local function cluster_for(path, agent)
  local id, verb = string.match(path, '^/v1/agents/([a-z0-9-]+)/(%a+)$')
  if id and BY_AGENT[verb] then return 'agent-' .. id end
  if path == '/run' or path == '/steps' or path == '/tasks' then return agent end
  if string.match(path, '^/agents%.v1%.AgentService/') or path == '/agents.v1.TaskService/SubmitTask' then return agent end
  if string.match(path, '^/agents%.v1%.TaskService/') then return 'agents' end
  if string.match(path, '^/v1/tasks') or string.match(path, '^/tasks/') then return 'agents' end
  if string.match(path, '^/v1/agents') or string.match(path, '^/v1/tools') then return 'registry' end
  local rpc = string.match(path, '^/registry%.v1%.(.+)$')
  if rpc and (string.match(rpc, '^ToolRegistryService/') or REGISTRY_RPC[rpc]) then return 'registry' end
  if path == '/' or path == '/ready' or path == '/openapi.json' or string.match(path, '^/assets/') then return 'gateway' end
  if string.match(path, '^/gateway%.v1%.') or string.match(path, '^/grpc%.health%.v1%.Health/') then return 'gateway' end
  return 'none'
end

function envoy_on_request(handle)
  if is_refused(handle) then return end
  local headers = handle:headers()
  local path = string.match(headers:get(':path'), '^[^?]*')
  local named = string.match(headers:get('x-agent-id') or '', '^[a-z][a-z0-9-]*$')
  headers:replace('x-agent-cluster', cluster_for(path, 'agent-' .. (named or DEFAULT_AGENT)))
  if headers:get(':method') == 'POST' and (path == '/tasks' or string.match(path, '^/v1/agents/[^/]+/tasks$')) then
    handle:streamInfo():dynamicMetadata():set('meshwright', 'accepts', true)
  end
  handle:clearRouteCache()
end

function envoy_on_response(handle)
  local headers = handle:headers()
  if headers:get('x-mesh-stream-end') ~= nil then
    headers:remove('x-mesh-stream-end')
    headers:replace(':status', '204')
    headers:remove('content-type')
  elseif headers:get(':status') == '200' and (handle:streamInfo():dynamicMetadata():get('meshwright') or {}).accepts then
    headers:replace(':status', '202')
  end
end
