-- Lets people see a worker.
-- KEYS: P, LIST
-- ARGV: worker, how long its facts stay (ms), then names and values
ignore_memory_limit()
local name = P .. 'worker:' .. ARGV[1]
redis.call('HSET', name, unpack(ARGV, 3))
redis.call('PEXPIRE', name, ARGV[2])
