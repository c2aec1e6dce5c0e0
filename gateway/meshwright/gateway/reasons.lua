-- What a gRPC server ends by itself, a deadline above all, has a status without details: here it gets its reason.
-- REASONS, by code, and status.lua stand in front of this text.

local function decoded(text)
  return (string.gsub(text, '%%(%x%x)', function(digits) return string.char(tonumber(digits, 16)) end))
end

function envoy_on_response(handle)
  local headers = handle:headers()
  local code = tonumber(headers:get('grpc-status') or '0')
  local reason = REASONS[code]
  if reason == nil or headers:get('grpc-status-details-bin') ~= nil then return end
  local message = decoded(headers:get('grpc-message') or '')
  headers:replace('grpc-status-details-bin', status(handle, code, reason, message))
  headers:replace('x-mesh-reason', reason)
end
