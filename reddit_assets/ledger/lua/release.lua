-- Gives claimed jobs back unharmed, to the head of their lanes.
-- KEYS: P, LIST
-- ARGV: worker, request, then per job: key, token
-- Returns the number given back.
local now = clock()
ignore_memory_limit()
return once(ARGV[1], ARGV[2], function()
  local given = 0
  for i = 3, #ARGV, 2 do
    local key, entry = ARGV[i], entry_of(ARGV[i])
    if holds(entry, ARGV[i + 1]) then
      end_lease(key, entry)
      requeue(key, entry, now, true)
      given = given + 1
    end
  end
  return given
end)
