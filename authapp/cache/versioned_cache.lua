#!lua name=authapp_cache_VERSION
-- One hash for each cached object:
--   v    the copy; absent = miss
--   b    life it was filled in: a copy that came back from a snapshot or another primary is a miss
--   ver  the version of the facts in the copy
--   lt   lease: only readers that saw the miss, and the writer that fenced, may fill, one of them, and only if
--        nothing happened since
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
-- generation: of sessions, once it is committed, or '0'. The life keeps the highest: Postgres may lose its last commits
local function begin_life(key, nonce, closed_ms, generation)
  local now = redis.call('TIME')
  local known = string.match(redis.call('GET', key) or '', '%.(%d+)') or '0'
  local begun = string.sub(redis.sha1hex(nonce .. now[1] .. '.' .. now[2]), 1, 16)
  generation = math.max(tonumber(known), tonumber(generation))
  if generation > 0 then
    begun = begun .. '.' .. string.format('%.0f', generation)
  end
  if closed_ms == '0' then
    redis.call('SET', key, begun, 'PX', LIFE_MS)
  else
    redis.call('SET', key, begun .. '!', 'PX', closed_ms)
  end
  return begun
end

-- The life that copies filled from now on are of.
local function present_life(key, nonce)
  local server, since = life(key)
  if key and since == '' then -- evicted or flushed: nobody knows which life the copies are of
    since = begin_life(key, nonce, '0', '0')
  end
  return server .. since, since
end

-- This call arriving once more, late, must not grant the same lease again.
local function grant(key, nonce)
  local now = redis.call('TIME')
  local lease = nonce .. now[1] .. '.' .. now[2]
  redis.call('HSET', key, 'lt', lease)
  return lease
end

-- acquire key [life's key], nonce, lease_ms, renew  →  {copy} on a hit; {copy or nil, life, lease} when a lease was granted
local function acquire(keys, args)
  local key = keys[1]
  local alive, since = present_life(keys[2], args[1])
  local found = redis.call('HMGET', key, 'v', 'b', 'lt')
  local copy = found[2] == alive and found[1]
  if copy and args[3] ~= '1' then
    return {copy}
  end
  local lease = found[3]
  if not lease then -- else shared: if each reader took it from the one before, a busy key would never be filled
    lease = grant(key, args[1])
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
  redis.call('HSET', key, 'v', args[4], 'b', alive, 'ver', args[3])
  redis.call('HDEL', key, 'lt')
  redis.call('PEXPIRE', key, args[5])
  return 'filled'
end

-- fence key [life's key], version, ttl_ms, nonce: no copy below this version from now on; idempotent
-- With a nonce, the caller may fill what it commits: →  {life, lease}; without one →  {}
local function fence(keys, args)
  local key = keys[1]
  local min = tonumber(redis.call('HGET', key, 'min') or 0)
  redis.call('HSET', key, 'min', string.format('%.0f', math.max(min, tonumber(args[1]))))
  redis.call('HDEL', key, 'v', 'b', 'ver', 'lt')
  redis.call('PEXPIRE', key, args[2])
  if args[3] == '' then
    return {}
  end
  return {(present_life(keys[2], args[3])), grant(key, args[3])}
end

-- refence key [life's key], version, ttl_ms: as fence, unless a copy of this version or a newer one stands
-- A copy that an earlier authapp filled has no version and gives way.
local function refence(keys, args)
  local server, since = life(keys[2])
  local found = redis.call('HMGET', keys[1], 'v', 'b', 'ver')
  if found[1] and found[2] == server .. since and tonumber(found[3] or -1) >= tonumber(args[1]) then
    return 'kept'
  end
  fence(keys, {args[1], args[2], ''})
  return 'fenced'
end

-- fence_all life's key, nonce, closed_ms, generation: all copies are misses from now on
local function fence_all(keys, args)
  begin_life(keys[1], args[1], args[2], args[3])
  return 'fenced'
end

-- allow-oom: a server that is full must still answer from its copies and must still take a fence
redis.register_function{function_name='authapp_acquire_VERSION', callback=acquire, flags={'allow-oom'}}
redis.register_function{function_name='authapp_fill_VERSION', callback=fill}
redis.register_function{function_name='authapp_fence_VERSION', callback=fence, flags={'allow-oom'}}
redis.register_function{function_name='authapp_refence_VERSION', callback=refence, flags={'allow-oom'}}
redis.register_function{function_name='authapp_fenceall_VERSION', callback=fence_all, flags={'allow-oom'}}
