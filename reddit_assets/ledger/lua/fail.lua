-- Notes a failed attempt: the job waits for its next one, or becomes a dead letter.
-- KEYS: P, LIST
-- ARGV: worker, request, key, token, error (JSON), permanent (0|1), largest number of attempts,
--       wait (ms), result for waiting runs if it dies (JSON)
-- Returns 'lost', 'delayed', 'dead' or 'queued' (wanted again meanwhile).
local key, token, error = ARGV[3], ARGV[4], ARGV[5]
local entry = entry_of(key)

ignore_memory_limit()
return once(ARGV[1], ARGV[2], function()
  if not holds(entry, token) then
    count('rejected')
    return 'lost'
  end
  local now = clock()
  count('failed')
  local stamp = redis.call('HGET', entry, 'stamp')
  local again = end_lease(key, entry)
  if again and redis.call('HGET', entry, 'stamp') ~= stamp then
    -- It is another content by now: that this one failed says nothing of it.
    requeue(key, entry, now, false)
    return 'queued'
  end
  local attempts = redis.call('HINCRBY', entry, 'attempts', 1)
  if ARGV[6] == '1' or attempts >= tonumber(ARGV[7]) then
    bury(key, entry, error, ARGV[9], now)
    return 'dead'
  elseif again then
    requeue(key, entry, now, false)
    return 'queued'
  end
  redis.call('HSET', entry, 'error', error)
  delay(key, entry, now + tonumber(ARGV[8]) * 2 ^ (attempts - 1))
  return 'delayed'
end)
