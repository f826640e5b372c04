#!lua flags=allow-oom
-- Takes back expired leases and queues retries that are due.
-- KEYS: P, LIST
-- ARGV: largest number of recoveries, largest number of jobs per call
-- Returns per expired lease: key, token, worker, 'queued' or 'dead'.
local now, limit = clock(), tonumber(ARGV[2])
local reaped = {}
for _, key in ipairs(redis.call('ZRANGEBYSCORE', P .. 'leases', '-inf', now, 'LIMIT', 0, limit)) do
  local entry = entry_of(key)
  local known = redis.call('HMGET', entry, 'token', 'worker', 'started', 'payload', 'lane', 'runs',
    'tombs', 'recoveries', 'id')
  local token, outcome = known[1] or '', 'queued'
  local recoveries = tonumber(known[8] or 0)
  count('expired')
  if known[3] == '1' then recoveries = recoveries + 1 end
  redis.call('HSET', entry, 'recoveries', recoveries, 'tombs', (known[7] or '') .. token .. ' ')
  redis.call('ZREM', P .. 'leases', key)
  if string.sub(key, 1, 8) == 'foreign:' then
    redis.call('DEL', entry)
    redis.call('LPUSH', LIST, known[4])
  elseif recoveries >= tonumber(ARGV[1]) and redis.call('HEXISTS', entry, 'next_id') == 0 then
    local error = {
      error = 'The worker died or hung ' .. recoveries .. ' times while computing this job.',
      type = 'WorkerDied', host = known[2],
      hint = 'Look at the worker\'s log and memory, then retry the dead letter.',
    }
    local result = {job = known[9], partition = key, ok = false, error = error.error,
      hint = error.hint, error_type = error.type, host = error.host}
    deliver(key, known[6], cjson.encode(result), false)
    redis.call('HSET', entry, 'runs', '')
    bury(key, entry, cjson.encode(error), now)
    outcome = 'dead'
  else
    local lane = known[5]
    if (known[6] or '') == '' then lane = resting_lane(entry, lane) end
    redis.call('HSET', entry, 'state', 'queued', 'lane', lane)
    redis.call('HDEL', entry, 'token', 'worker', 'started')
    push(key, lane, known[4], now, true)
  end
  for _, value in ipairs({key, token, known[2] or '', outcome}) do
    reaped[#reaped + 1] = value
  end
end
for _, key in ipairs(redis.call('ZRANGEBYSCORE', P .. 'delayed', '-inf', now, 'LIMIT', 0, limit)) do
  local entry = entry_of(key)
  local known = redis.call('HMGET', entry, 'payload', 'lane', 'runs')
  local lane = known[2]
  if (known[3] or '') == '' then lane = resting_lane(entry, lane) end
  redis.call('ZREM', P .. 'delayed', key)
  redis.call('HSET', entry, 'state', 'queued', 'lane', lane)
  push(key, lane, known[1], now, false)
end
return reaped
