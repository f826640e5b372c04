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

-- Notes how much has been done by now, so that everybody can tell how fast it goes.
local SPACING, KEPT = 15000, 240
local COUNTERS = {'done', 'failed', 'rows', 'tokens', 'bytes', 'milliseconds'}

local function sample()
  local samples = P .. 'samples'
  local last = redis.call('LINDEX', samples, -1)
  if last and now - tonumber(string.match(last, '^%d+')) < SPACING then return end
  local values = redis.call('HMGET', P .. 'counters', unpack(COUNTERS))
  for at = 1, #COUNTERS do values[at] = values[at] or '0' end
  redis.call('RPUSH', samples, string.format('%.0f ', now) .. table.concat(values, ' '))
  if redis.call('LLEN', samples) > KEPT then redis.call('LPOP', samples) end
end

ignore_memory_limit()
sample()
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
