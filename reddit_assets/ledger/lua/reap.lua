-- Takes back expired leases and queues retries that are due.
-- KEYS: P, LIST
-- ARGV: wait of the first delay (ms), largest number of jobs per call
-- Returns per expired lease: key, token, worker, and what became of it: queued, suspect or delayed.
-- A whole worker has vanished, which need not be the job's doing: it becomes no dead letter. From
-- the third time on it waits, twice as long each time, up to an hour.
local now, wait, limit = clock(), tonumber(ARGV[1]), tonumber(ARGV[2])
local HOUR, PATIENCE = 3600000, 3

local function evict(key, entry)
  redis.call('HSET', entry, 'suspect', '1')
  local evictions = redis.call('HINCRBY', entry, 'evictions', 1)
  if evictions < PATIENCE then
    requeue(key, entry, now, true)
    return 'suspect'
  end
  delay(key, entry, now + math.min(HOUR, wait * 2 ^ (evictions - PATIENCE)))
  return 'delayed'
end

ignore_memory_limit()
local reaped = {}
for _, key in ipairs(redis.call('ZRANGEBYSCORE', P .. 'leases', '-inf', now, 'LIMIT', 0, limit)) do
  local entry = entry_of(key)
  local known = redis.call('HMGET', entry, 'token', 'worker', 'started')
  local outcome = 'queued'
  count('expired')
  end_lease(key, entry)
  if known[3] == '1' then
    outcome = evict(key, entry)
  else
    requeue(key, entry, now, true)
  end
  for _, value in ipairs({key, known[1] or '', known[2] or '', outcome}) do
    reaped[#reaped + 1] = value
  end
end
for _, key in ipairs(redis.call('ZRANGEBYSCORE', P .. 'delayed', '-inf', now, 'LIMIT', 0, limit)) do
  redis.call('ZREM', P .. 'delayed', key)
  requeue(key, entry_of(key), now, false)
end
return reaped
