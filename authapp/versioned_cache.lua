#!lua name=authapp_cache_1
-- One hash for each cached object:
--   v    the copy; absent = miss
--   b    run_id of the server that was filled: a copy that came back from a snapshot or another primary is a miss
--   lt   lease: only the reader that saw the miss may fill, and only if nothing happened since
--   min  fence: the lowest version that may be filled
-- Each function touches one key, so it works on a cluster. See docs/architecture.md for why all four fields are needed.

local boot -- asked once a process: INFO costs as much as the rest of a call
local function run_id()
  if not boot then
    boot = string.match(redis.call('INFO', 'server'), 'run_id:(%x+)')
  end
  return boot
end

-- acquire key, lease, lease_ms, renew  →  {copy} on a hit; {copy or nil, run_id} when a lease was granted
local function acquire(keys, args)
  local key = keys[1]
  local found = redis.call('HMGET', key, 'v', 'b')
  local copy = found[2] == run_id() and found[1]
  if copy and args[3] ~= '1' then
    return {copy}
  end
  redis.call('HSET', key, 'lt', args[1])
  if redis.call('PTTL', key) < tonumber(args[2]) then -- never shortens the life of a fence
    redis.call('PEXPIRE', key, args[2])
  end
  return {copy, run_id()}
end

-- fill key, lease, run_id, version, copy, ttl_ms  →  'filled', or why not: 'boot', 'lease', 'fence'
local function fill(keys, args)
  local key = keys[1]
  if args[2] ~= run_id() then
    return 'boot'
  end
  local found = redis.call('HMGET', key, 'lt', 'min')
  if found[1] ~= args[1] then
    return 'lease'
  end
  if found[2] and tonumber(found[2]) > tonumber(args[3]) then
    return 'fence'
  end
  redis.call('HSET', key, 'v', args[4], 'b', run_id())
  redis.call('HDEL', key, 'lt')
  redis.call('PEXPIRE', key, args[5])
  return 'filled'
end

-- fence key, version, ttl_ms: no copy below this version from now on; idempotent
local function fence(keys, args)
  local key = keys[1]
  local min = tonumber(redis.call('HGET', key, 'min') or 0)
  redis.call('HSET', key, 'min', string.format('%.0f', math.max(min, tonumber(args[1]))))
  redis.call('HDEL', key, 'v', 'b', 'lt')
  redis.call('PEXPIRE', key, args[2])
  return 'fenced'
end

-- allow-oom: a server that is full must still answer from its copies and must still take a fence
redis.register_function{function_name='authapp_acquire_1', callback=acquire, flags={'allow-oom'}}
redis.register_function{function_name='authapp_fill_1', callback=fill}
redis.register_function{function_name='authapp_fence_1', callback=fence, flags={'allow-oom'}}
