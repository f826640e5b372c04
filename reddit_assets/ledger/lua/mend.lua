-- Lets entries be in the one set that their state names, and in no other.
-- KEYS: P, LIST
-- ARGV: 1 to mend (0: only look), then keys
-- Returns the keys that are (or were) in the wrong place. A lease without a time has expired, a
-- delayed job without one is due.
local now, wrong = clock(), {}
local SETS = {queued = 'queued', delayed = 'delayed', leased = 'leases', dead = 'dead'}
if ARGV[1] == '1' then ignore_memory_limit() end
for i = 2, #ARGV do
  local key, bad = ARGV[i], false
  local state = redis.call('HGET', entry_of(key), 'state')
  for name, set in pairs(SETS) do
    local there = redis.call('ZSCORE', P .. set, key) and true or false
    if there ~= (state == name) then
      bad = true
      if ARGV[1] == '1' then
        if there then redis.call('ZREM', P .. set, key) else redis.call('ZADD', P .. set, now, key) end
      end
    end
  end
  if bad then wrong[#wrong + 1] = key end
end
return wrong
