#!lua flags=allow-oom
-- Gives claimed jobs back unharmed, to the head of their lanes.
-- KEYS: P, LIST
-- ARGV: per job: key, token
-- Returns the number given back.
local now, given = clock(), 0
for i = 1, #ARGV, 2 do
  local key, entry = ARGV[i], entry_of(ARGV[i])
  if holds(entry, ARGV[i + 1]) then
    local known = redis.call('HMGET', entry, 'payload', 'lane', 'runs', 'tombs')
    local lane = known[2]
    if string.sub(key, 1, 8) == 'foreign:' then
      redis.call('DEL', entry)
      redis.call('LPUSH', LIST, known[1])
    else
      if (known[3] or '') == '' then lane = resting_lane(entry, lane) end
      redis.call('HSET', entry, 'state', 'queued', 'lane', lane,
        'tombs', (known[4] or '') .. ARGV[i + 1] .. ' ')
      redis.call('HDEL', entry, 'token', 'worker', 'started')
      push(key, lane, known[1], now, true)
    end
    redis.call('ZREM', P .. 'leases', key)
    given = given + 1
  end
end
return given
