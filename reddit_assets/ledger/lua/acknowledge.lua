-- Ends a job that succeeded: its result goes to every waiter and it leaves the ledger, at once.
-- KEYS: P, LIST
-- ARGV: worker, request, key, token, result (JSON), rows, tokens, milliseconds of computing, bytes
--       of input (not given by older workers)
-- Returns 0 if the token no longer holds it, 1 when done, 2 when done and queued again.
local key, token, result = ARGV[3], ARGV[4], ARGV[5]
local entry = entry_of(key)
ignore_memory_limit()

return once(ARGV[1], ARGV[2], function()
  local known = redis.call('HMGET', entry, 'state', 'token', 'runs', 'next_id')
  if known[1] ~= 'leased' or known[2] ~= token then
    count('rejected')
    return 0
  end
  deliver(key, known[3], result, true)
  count('done')
  for at, name in ipairs({'rows', 'tokens', 'milliseconds', 'bytes'}) do
    if (ARGV[at + 5] or '0') ~= '0' then count(name, ARGV[at + 5]) end
  end
  redis.call('ZREM', P .. 'leases', key)
  if known[4] then
    take_wish(entry, '')
    redis.call('HDEL', entry, 'token', 'worker', 'started', 'attempts', 'crashes', 'evictions',
      'suspect', 'tombs', 'error')
    requeue(key, entry, clock(), false)
    return 2
  end
  redis.call('DEL', entry)
  return 1
end)
