#!lua
-- Pushes again what a plain consumer took from the public list and lost.
-- KEYS: P, LIST
-- ARGV: per job: key, id
-- Returns the number pushed.
local now, pushed = clock(), 0
for i = 1, #ARGV, 2 do
  local key, entry = ARGV[i], entry_of(ARGV[i])
  local known = redis.call('HMGET', entry, 'state', 'id', 'lane', 'payload')
  if known[1] == 'queued' and known[2] == ARGV[i + 1] and known[3] == 'public' then
    push(key, 'public', known[4], now, false)
    pushed = pushed + 1
    count('repushed')
  end
end
return pushed
