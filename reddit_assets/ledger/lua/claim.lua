#!lua flags=allow-oom
-- Takes jobs from the lanes in turn and leases them to a worker.
-- KEYS: P, LIST
-- ARGV: worker, lease (ms), largest payload (bytes), one fresh token per job wanted
-- Returns 'paused', or per job: key, id, token, payload, stamp, force, attempts, recoveries, tombs.
-- A job of a foreign producer (no id) has the key 'foreign:<sha1>' until `adopt` names it.
local worker, lease, largest = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local now = clock()
redis.call('ZADD', P .. 'workers', now, worker)
if redis.call('EXISTS', P .. 'paused') == 1 then return 'paused' end

local function reject(payload, why)
  local key = 'malformed:' .. redis.sha1hex(payload)
  local entry = entry_of(key)
  if redis.call('EXISTS', entry) == 1 then return end
  local kept = string.sub(payload, 1, 2000)
  redis.call('HSET', entry, 'payload', kept, 'lane', 'public', 'attempts', 1)
  bury(key, entry, cjson.encode({
    error = 'The queue entry ' .. why .. '.', type = 'BadJobError', host = worker,
    hint = 'Correct its producer, then purge the entry.', size = #payload,
  }), now)
end

-- The ledger's view of a copy taken from a list: its key and id, or nothing if it is not wanted.
local function accept(payload)
  if #payload > largest then
    return reject(payload, 'is larger than ' .. largest .. ' bytes')
  end
  local fine, job = pcall(cjson.decode, payload)
  if not fine then return reject(payload, 'is not JSON') end
  if type(job) ~= 'table' or not string.match(payload, '^%s*{') then
    return reject(payload, 'is not a JSON object')
  end
  if type(job.id) == 'string' and type(job.key) == 'string' then
    local known = redis.call('HMGET', entry_of(job.key), 'state', 'id')
    if known[1] == 'queued' and known[2] == job.id then return job.key, job.id end
    count('discarded')
    return
  end
  local key = 'foreign:' .. redis.sha1hex(payload)
  if redis.call('EXISTS', entry_of(key)) == 1 then
    count('discarded')
    return
  end
  redis.call('HSET', entry_of(key), 'payload', payload, 'lane', 'public', 'home', 'public',
    'stamp', '', 'force', '0', 'scan', '1', 'runs', '')
  return key, ''
end

local function take(lane)
  while true do
    local payload = redis.call('LPOP', list_of(lane))
    if not payload then
      if lane ~= 'public' then redis.call('ZREM', P .. 'lanes', lane) end
      return
    end
    local key, id = accept(payload)
    if key then return key, id, payload end
  end
end

-- Lanes by their last turn, the public list among them; urgent jobs before all.
local function turns()
  local order = {'urgent'}
  local public = tonumber(redis.call('ZSCORE', P .. 'lanes', 'public') or 0)
  local placed = false
  local known = redis.call('ZRANGE', P .. 'lanes', 0, -1, 'WITHSCORES')
  for i = 1, #known, 2 do
    if not placed and tonumber(known[i + 1]) >= public then
      order[#order + 1] = 'public'
      placed = true
    end
    if known[i] ~= 'urgent' and known[i] ~= 'public' then order[#order + 1] = known[i] end
  end
  if not placed then order[#order + 1] = 'public' end
  return order
end

local jobs = {}
local order = turns()
local at, idle = 1, 0
for i = 4, #ARGV do
  local key, id, payload
  -- Urgent first; then one job per lane and turn.
  key, id, payload = take('urgent')
  while not key and idle < #order do
    local lane = order[at]
    key, id, payload = take(lane)
    if key then
      idle = 0
      redis.call('ZADD', P .. 'lanes', redis.call('INCR', P .. 'serial'), lane)
    else
      idle = idle + 1
    end
    at = at % #order + 1
  end
  if not key then break end
  local entry, token = entry_of(key), ARGV[i]
  redis.call('HSET', entry, 'state', 'leased', 'token', token, 'worker', worker, 'started', '0')
  redis.call('ZREM', P .. 'queued', key)
  redis.call('ZADD', P .. 'leases', now + lease, key)
  local known = redis.call('HMGET', entry, 'stamp', 'force', 'attempts', 'recoveries', 'tombs')
  for _, value in ipairs({key, id, token, payload, known[1] or '', known[2] or '0',
    known[3] or '0', known[4] or '0', known[5] or ''}) do
    jobs[#jobs + 1] = value
  end
end
return jobs
