-- Lets one worker become or stay the one that reaps.
-- KEYS: P, LIST
-- ARGV: worker, time after which it falls free without this call (ms)
-- Returns 1 if the worker leads.
local holder = redis.call('GET', P .. 'reaper')
if holder and holder ~= ARGV[1] then return 0 end
ignore_memory_limit()
redis.call('SET', P .. 'reaper', ARGV[1], 'PX', ARGV[2])
-- Workers that were killed have not said good-bye.
redis.call('ZREMRANGEBYSCORE', P .. 'workers', '-inf', clock() - 86400000)
return 1
