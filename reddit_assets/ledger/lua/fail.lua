#!lua flags=allow-oom
-- Notes a failed attempt: the job waits for its next one, or becomes a dead letter.
-- KEYS: P, LIST
-- ARGV: key, token, error (JSON), permanent (0|1), largest number of attempts, wait (ms),
--       result for waiting runs if it dies (JSON)
-- Returns 'lost', 'delayed', 'dead' or 'queued' (wanted anew meanwhile).
local key, token, error = ARGV[1], ARGV[2], ARGV[3]
local entry = entry_of(key)
if not holds(entry, token) then
  count('rejected')
  return 'lost'
end
local now = clock()
count('failed')
if redis.call('HEXISTS', entry, 'next_id') == 1 then
  -- Whoever waits for this attempt waits for the next one as well.
  local waiting = redis.call('HMGET', entry, 'runs', 'next_runs')
  local runs = waiting[2] or ''
  for _, run in ipairs(runs_in(waiting[1])) do runs = with_run(runs, run) end
  redis.call('HSET', entry, 'next_runs', runs)
  renew_wish(key, entry, now)
  return 'queued'
end
local attempts = redis.call('HINCRBY', entry, 'attempts', 1)
if ARGV[4] == '1' or attempts >= tonumber(ARGV[5]) then
  deliver(key, redis.call('HGET', entry, 'runs'), ARGV[7], false)
  redis.call('HSET', entry, 'runs', '')
  bury(key, entry, error, now)
  return 'dead'
end
redis.call('HSET', entry, 'state', 'delayed', 'error', error)
redis.call('HDEL', entry, 'token', 'worker', 'started')
redis.call('ZREM', P .. 'leases', key)
redis.call('ZADD', P .. 'delayed', now + tonumber(ARGV[6]) * 2 ^ (attempts - 1), key)
return 'delayed'
