-- Pushes again what is queued and whose copy is lost: a plain consumer took it from the public list,
-- or somebody deleted a list.
-- KEYS: P, LIST
-- ARGV: per job: key, id
-- Returns the number pushed.
local now, pushed = clock(), 0
respect_memory_limit()
for i = 1, #ARGV, 2 do
  local key, id = ARGV[i], ARGV[i + 1]
  local known = redis.call('HMGET', entry_of(key), 'state', 'id', 'lane', 'payload')
  if known[1] == 'queued' and known[2] == id then
    push(key, known[3], id, known[4], now, false)
    pushed = pushed + 1
    count('repushed')
  end
end
return pushed
