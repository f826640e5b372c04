-- Notes that the process that computed these jobs died.
-- KEYS: P, LIST
-- ARGV: worker, request, largest number of crashes, error (JSON), then per job: key, token,
--       started (0|1), result for waiting runs if it dies (JSON)
-- Returns per job: queued (it was not started), suspect (it will run alone), dead, or lost.
-- Of several started jobs any can be the cause: none is blamed, and each must run alone.
local largest, error = tonumber(ARGV[3]), ARGV[4]
local now, started = clock(), 0
for i = 5, #ARGV, 4 do
  if ARGV[i + 2] == '1' then started = started + 1 end
end

local function crash(key, entry, result)
  local crashes = tonumber(redis.call('HGET', entry, 'crashes') or 0)
  redis.call('HSET', entry, 'suspect', '1')
  if started == 1 then
    crashes = redis.call('HINCRBY', entry, 'crashes', 1)
    if crashes >= largest then
      bury(key, entry, error, result, now)
      return 'dead'
    end
  end
  requeue(key, entry, now, true)
  return 'suspect'
end

ignore_memory_limit()
return once(ARGV[1], ARGV[2], function()
  local answers = {}
  for i = 5, #ARGV, 4 do
    local key, entry = ARGV[i], entry_of(ARGV[i])
    local answer = 'lost'
    if not holds(entry, ARGV[i + 1]) then
      count('rejected')
    else
      end_lease(key, entry)
      if ARGV[i + 2] == '1' then
        count('crashed')
        answer = crash(key, entry, ARGV[i + 3])
      else
        requeue(key, entry, now, true)
        answer = 'queued'
      end
    end
    answers[#answers + 1] = answer
  end
  return answers
end)
