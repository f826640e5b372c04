-- Removes entries whose outputs are there (state queued or delayed, awaited by no run) or that an
-- operator purges (state dead).
-- KEYS: P, LIST
-- ARGV: state to remove ('queued' also means delayed, or 'dead'), then per entry: key, id ('' any)
-- Returns the number removed.
local wanted, removed = ARGV[1], 0
ignore_memory_limit()
for i = 2, #ARGV, 2 do
  local key, id, entry = ARGV[i], ARGV[i + 1], entry_of(ARGV[i])
  local known = redis.call('HMGET', entry, 'state', 'runs', 'id')
  local state = known[1] == 'delayed' and 'queued' or known[1]
  if state == wanted and (wanted == 'dead' or (known[2] or '') == '')
      and (id == '' or id == known[3]) then
    redis.call('DEL', entry, refused_lines(key))
    redis.call('ZREM', P .. known[1], key)
    removed = removed + 1
  end
end
return removed
