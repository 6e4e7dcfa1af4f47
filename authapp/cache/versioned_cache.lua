#!lua name=authapp_cache_VERSION
-- One hash for each cached object:
--   v    the copy; absent = miss
--   b    life it was filled in: a copy that came back from a snapshot or another primary is a miss
--   lt   lease: only readers that saw the miss may fill, one of them, and only if nothing happened since
--   min  fence: the lowest version that may be filled
-- One key beside them, the life's key, ends the life of all copies at once when its value changes.
-- On a cluster that key lies on another server, so there no function is given it: each touches one key.
-- See docs/architecture.md for why all of this is needed.

-- run_id is new at every start, master_replid at every promotion: a primary that was demoted and promoted again
-- keeps its run_id, and with it alone would trust the copies of its first reign. The latter changes under us.
-- Of each the first 64 random bits: each copy holds them.
local function id(section, name)
  return string.sub(string.match(redis.call('INFO', section), name .. ':(%x+)'), 1, 16)
end

-- Each miss prolongs it, so a life ends by itself only where nobody has come for so long.
local LIFE_MS = 40 * 86400 * 1000

local run_id
local function life(key)
  run_id = run_id or id('server', 'run_id')
  local server = run_id .. id('replication', 'master_replid')
  return server, key and redis.call('GET', key) or ''
end

-- Begins the next life. The time is part of it, so that this call arriving once more, late, brings no old one back.
-- closed_ms: for so long no copy is filled; '0' for one that is open at once
local function begin_life(key, nonce, closed_ms)
  local now = redis.call('TIME')
  local begun = string.sub(redis.sha1hex(nonce .. now[1] .. '.' .. now[2]), 1, 16)
  if closed_ms == '0' then
    redis.call('SET', key, begun, 'PX', LIFE_MS)
  else
    redis.call('SET', key, begun .. '!', 'PX', closed_ms)
  end
  return begun
end

-- acquire key [life's key], nonce, lease_ms, renew  →  {copy} on a hit; {copy or nil, life, lease} when a lease was granted
local function acquire(keys, args)
  local key = keys[1]
  local server, since = life(keys[2])
  if keys[2] and since == '' then -- evicted or flushed: nobody knows which life the copies are of
    since = begin_life(keys[2], args[1], '0')
  end
  local alive = server .. since
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
    if keys[2] and string.sub(since, -1) ~= '!' then
      redis.call('PEXPIRE', keys[2], LIFE_MS)
    end
  end
  return {copy, alive, lease}
end

-- fill key [life's key], lease, life, version, copy, ttl_ms  →  'filled', or why not: 'boot', 'lease', 'fence'
local function fill(keys, args)
  local key = keys[1]
  local server, since = life(keys[2])
  local alive = server .. since
  if args[2] ~= alive then
    return 'boot'
  end
  if string.sub(since, -1) == '!' then
    return 'fence'
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

-- fence_all life's key, nonce, closed_ms: all copies are misses from now on
local function fence_all(keys, args)
  begin_life(keys[1], args[1], args[2])
  return 'fenced'
end

-- allow-oom: a server that is full must still answer from its copies and must still take a fence
redis.register_function{function_name='authapp_acquire_VERSION', callback=acquire, flags={'allow-oom'}}
redis.register_function{function_name='authapp_fill_VERSION', callback=fill}
redis.register_function{function_name='authapp_fence_VERSION', callback=fence, flags={'allow-oom'}}
redis.register_function{function_name='authapp_fenceall_VERSION', callback=fence_all, flags={'allow-oom'}}
