#!lua
-- Queues dead letters again, with their attempts forgotten.
-- KEYS: P, LIST
-- ARGV: keys
-- Returns the number queued.
local now, queued = clock(), 0
for _, key in ipairs(ARGV) do
  local entry = entry_of(key)
  local known = redis.call('HMGET', entry, 'state', 'payload')
  if known[1] == 'dead' then
    redis.call('ZREM', P .. 'dead', key)
    if string.match(key, '^foreign:') or string.match(key, '^malformed:') then
      redis.call('DEL', entry)
      redis.call('RPUSH', LIST, known[2])
    else
      redis.call('HSET', entry, 'state', 'queued', 'lane', 'retry', 'scan', '1')
      redis.call('HDEL', entry, 'attempts', 'recoveries', 'error')
      push(key, 'retry', known[2], now, false)
    end
    queued = queued + 1
  end
end
return queued
