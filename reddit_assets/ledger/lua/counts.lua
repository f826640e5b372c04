-- Counts what is where, all at one moment. (MULTI would be refused under maxmemory.)
-- KEYS: P, LIST
-- Returns public, queued, delayed, leased, dead, outbox, rejected, runs, workers of the last minute,
-- whether it is paused, the counters' names and values, and for how long (ms) the oldest job has been
-- queued.
local now = clock()
local counts = {redis.call('LLEN', LIST)}
for _, name in ipairs({'queued', 'delayed', 'leases', 'dead'}) do
  counts[#counts + 1] = redis.call('ZCARD', P .. name)
end
counts[6] = redis.call('XLEN', P .. 'outbox')
counts[7] = redis.call('XLEN', P .. 'rejected')
counts[8] = redis.call('ZCARD', P .. 'runs')
counts[9] = redis.call('ZCOUNT', P .. 'workers', now - 60000, '+inf')
counts[10] = redis.call('EXISTS', P .. 'paused')
counts[11] = redis.call('HGETALL', P .. 'counters')
local oldest = redis.call('ZRANGE', P .. 'queued', 0, 0, 'WITHSCORES')
counts[12] = oldest[2] and math.max(0, now - tonumber(oldest[2])) or 0
return counts
