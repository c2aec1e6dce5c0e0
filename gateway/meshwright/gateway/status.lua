-- google.rpc.Status, written byte by byte, since Lua knows no protobuf.

local function varint(number)
  local bytes = ''
  while number > 127 do
    bytes = bytes .. string.char(number % 128 + 128)
    number = math.floor(number / 128)
  end
  return bytes .. string.char(number)
end

local function field(number, value) return string.char(number * 8 + 2) .. varint(#value) .. value end

-- A google.rpc.Status with an ErrorInfo, as a gRPC client reads it.
local function status(handle, grpc_code, reason, message, request_id)
  local info = field(1, reason) .. field(2, 'meshwright')
  if request_id then info = info .. field(3, field(1, 'request_id') .. field(2, request_id)) end
  local detail = field(1, 'type.googleapis.com/google.rpc.ErrorInfo') .. field(2, info)
  local bytes = '\8' .. string.char(grpc_code) .. field(2, message) .. field(3, detail)
  return (string.gsub(handle:base64Escape(bytes), '=+$', ''))
end
