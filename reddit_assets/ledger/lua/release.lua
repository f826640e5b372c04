-- Gives claimed jobs back unharmed: to the head of their lanes, or behind all others after a delay.
-- KEYS: P, LIST
-- ARGV: worker, request, delay (ms), then per job: key, token
-- Returns the number given back.
local now, wait = clock(), tonumber(ARGV[3])
ignore_memory_limit()
return once(ARGV[1], ARGV[2], function()
  local given = 0
  for i = 4, #ARGV, 2 do
    local key, entry = ARGV[i], entry_of(ARGV[i])
    if holds(entry, ARGV[i + 1]) then
      end_lease(key, entry, true)
      if wait > 0 and not is_foreign(key) then
        delay(key, entry, now + wait)
      else
        requeue(key, entry, now, true)
      end
      given = given + 1
    end
  end
  return given
end)
