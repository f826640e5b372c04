-- Opens a run or renews its lease, and finds runs whose lease has expired.
-- KEYS: P, LIST
-- ARGV: run ('' for none), lease (ms)
-- Returns the runs whose lease has expired.
local now = clock()
ignore_memory_limit()
if ARGV[1] ~= '' then redis.call('ZADD', P .. 'runs', now + tonumber(ARGV[2]), ARGV[1]) end
return redis.call('ZRANGEBYSCORE', P .. 'runs', '-inf', now)
