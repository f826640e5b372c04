-- Takes or keeps one of the few connection slots that all REST reporters share.
-- KEYS: P, LIST
-- ARGV: reporter, number of slots, time to live (ms); a time of 0 gives the slot back
-- Returns 1 when the reporter has a slot.
local slots, now = P .. 'reporters', clock()
ignore_memory_limit()
redis.call('ZREMRANGEBYSCORE', slots, '-inf', now)
if ARGV[3] == '0' then
  redis.call('ZREM', slots, ARGV[1])
  return 0
end
if not redis.call('ZSCORE', slots, ARGV[1]) and redis.call('ZCARD', slots) >= tonumber(ARGV[2]) then
  return 0
end
redis.call('ZADD', slots, now + tonumber(ARGV[3]), ARGV[1])
return 1
