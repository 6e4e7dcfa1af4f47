#!lua name=authapp_cache_VERSION
-- One hash for each cached object:
--   v    the copy; absent = miss
--   b    life of the server that was filled: a copy that came back from a snapshot or another primary is a miss
--   lt   lease: only readers that saw the miss may fill, one of them, and only if nothing happened since
--   min  fence: the lowest version that may be filled
-- Each function touches one key, so it works on a cluster. See docs/architecture.md for why all four fields are needed.

-- run_id is new at every start, master_replid at every promotion: a primary that was demoted and promoted again
-- keeps its run_id, and with it alone would trust the copies of its first reign. The latter changes under us.
-- Of each the first 64 random bits: each copy holds them.
local function id(section, name)
  return string.sub(string.match(redis.call('INFO', section), name .. ':(%x+)'), 1, 16)
end

local run_id
local function life()
  run_id = run_id or id('server', 'run_id')
  return run_id .. id('replication', 'master_replid')
end

-- acquire key, nonce, lease_ms, renew  →  {copy} on a hit; {copy or nil, life, lease} when a lease was granted
local function acquire(keys, args)
  local key = keys[1]
  local alive = life()
  local found = redis.call('HMGET', key, 'v', 'b', 'lt')
  local copy = found[2] == alive and found[1]
  if copy and args[3] ~= '1' then
    return {copy}
  end
  local lease = found[3]
  if not lease then -- else shared: if each reader took it from the one before, a busy key would never be filled
    local now = redis.call('TIME') -- this call arriving once more, late, must not grant the same lease again
    lease = args[1] .. now[1] .. '.' .. now[2]
    redis.call('HSET', key, 'lt', lease)
    redis.call('PEXPIRE', key, args[2], 'NX') -- neither shortens the life of a fence nor prolongs that of a copy
  end
  return {copy, alive, lease}
end

-- fill key, lease, life, version, copy, ttl_ms  →  'filled', or why not: 'boot', 'lease', 'fence'
local function fill(keys, args)
  local key = keys[1]
  local alive = life()
  if args[2] ~= alive then
    return 'boot'
  end
  local found = redis.call('HMGET', key, 'lt', 'min')
  if found[1] ~= args[1] then
    return 'lease'
  end
  if found[2] and tonumber(found[2]) > tonumber(args[3]) then
    return 'fence'
  end
  redis.call('HSET', key, 'v', args[4], 'b', alive)
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
redis.register_function{function_name='authapp_acquire_VERSION', callback=acquire, flags={'allow-oom'}}
redis.register_function{function_name='authapp_fill_VERSION', callback=fill}
redis.register_function{function_name='authapp_fence_VERSION', callback=fence, flags={'allow-oom'}}
