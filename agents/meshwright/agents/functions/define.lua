-- Under these names the functions are called. With `allow-oom` a full store lets go on what was accepted; only what
-- would add to it is refused.

local function define(name, callback, flags)
  redis.register_function({function_name = name .. '_VERSION', callback = callback, flags = flags})
end

local GOES_ON = {'allow-oom'}
define('accept', accept)
define('adopt', accept, GOES_ON)  -- children belong to what was accepted
define('enter', enter, GOES_ON)
define('claim', claim, GOES_ON)
define('append', append, GOES_ON)
define('park', park, GOES_ON)
define('nudge', nudge, GOES_ON)
define('finish', finish, GOES_ON)
define('finish_idle', finish_idle, GOES_ON)
define('cancel', cancel, GOES_ON)
define('resolve', resolve, GOES_ON)
define('strand', strand, GOES_ON)
define('pass_on', pass_on, GOES_ON)
define('release', release, GOES_ON)
define('beat', beat, GOES_ON)
define('sweep', sweep, GOES_ON)
define('purge', purge, GOES_ON)
define('leave', leave, GOES_ON)
define('hook', hook, GOES_ON)
define('unhook', unhook, GOES_ON)
define('take', take, GOES_ON)
define('settle', settle, GOES_ON)
