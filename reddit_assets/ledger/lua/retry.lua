-- Queues dead letters again, with their failures forgotten. A suspect stays one.
-- KEYS: P, LIST
-- ARGV: keys
-- Returns the number queued.
local now, queued = clock(), 0
respect_memory_limit()
for _, key in ipairs(ARGV) do
  local entry = entry_of(key)
  local known = redis.call('HMGET', entry, 'state', 'payload')
  if known[1] == 'dead' then
    if is_foreign(key) or string.match(key, '^malformed:') then
      local lines = redis.call('LRANGE', refused_lines(key), 0, -1)
      if #lines == 0 then lines = {known[2]} end
      for _, line in ipairs(lines) do redis.call('RPUSH', LIST, line) end
      redis.call('DEL', entry, refused_lines(key))
    else
      redis.call('HSET', entry, 'lane', 'stale', 'scan', '1')
      redis.call('HDEL', entry, 'attempts', 'crashes', 'evictions', 'error')
      requeue(key, entry, now, false)
    end
    redis.call('ZREM', P .. 'dead', key)
    queued = queued + 1
  end
end
return queued
