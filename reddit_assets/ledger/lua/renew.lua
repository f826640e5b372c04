-- Extends leases, and notes which jobs are being computed.
-- KEYS: P, LIST
-- ARGV: worker, lease (ms), then per job: key, token, started (0|1)
-- Returns per job 1, or 0 if the token no longer holds it.
local now = clock()
ignore_memory_limit()
redis.call('ZADD', P .. 'workers', now, ARGV[1])
local kept = {}
for i = 3, #ARGV, 3 do
  local key, entry = ARGV[i], entry_of(ARGV[i])
  if holds(entry, ARGV[i + 1]) then
    redis.call('ZADD', P .. 'leases', now + tonumber(ARGV[2]), key)
    if ARGV[i + 2] == '1' then redis.call('HSET', entry, 'started', '1') end
    kept[#kept + 1] = 1
  else
    kept[#kept + 1] = 0
  end
end
return kept
