-- Takes jobs from the lanes in turn and leases them to a worker.
-- KEYS: P, LIST
-- ARGV: worker, request, lease (ms), largest line (bytes), alone (1: a suspect may be taken),
--       one fresh token per job wanted
-- Returns 'paused', or {more, suspects, then per job: key, token, line, bytes of the line, id,
-- stamp, force, attempts, crashes, evictions, suspect, tombs}.
--   more      1: the call stopped early, after many superseded copies; ask again at once
--   suspects  1: a suspect waits that must run alone
--   bytes     -1 of our own jobs; others are leased as 'foreign:<sha1>' for Python to read
local worker, lease, largest, alone = ARGV[1], tonumber(ARGV[3]), tonumber(ARGV[4]), ARGV[5] == '1'
local now = clock()
local looks = 1000 -- superseded copies that one call discards at most

-- Our copies: the end of the JSON that we write in the public list, '<id> <key>' elsewhere (JSON as
-- well in a queue of the older code). A key with an escape in it is left to Python.
local ID = string.rep('%x', 16)
local SHORT = '^(' .. ID .. ') (.+)$'
local JSON = '"id": "(' .. ID .. ')", "key": "([^"\\]+)"}$'

local function own_copy(lane, line)
  local id, key
  if lane ~= 'public' then id, key = string.match(line, SHORT) end
  if not id then id, key = string.match(string.sub(line, -largest), JSON) end
  return id, key
end

-- Notes a line that is none of our copies, so that it is not lost while Python reads it.
local function note_foreign(line)
  local sha = redis.sha1hex(line)
  local key = 'foreign:' .. sha
  if redis.call('EXISTS', entry_of(key), entry_of('malformed:' .. sha)) > 0 then return end
  local kept = #line > largest and string.sub(line, 1, 2000) or line
  redis.call('HSET', entry_of(key), 'payload', kept, 'lane', 'public', 'home', 'public')
  return key
end

-- The ledger's key of a line taken from a lane, and the line itself if it is foreign; nothing if
-- nobody wants it.
local function accept(lane, line)
  local id, key = own_copy(lane, line)
  if not id then
    key = note_foreign(line)
    if key then return key, line end
  else
    local known = redis.call('HMGET', entry_of(key), 'state', 'id', 'lane')
    if known[1] == 'queued' and known[2] == id and known[3] == lane then return key end
  end
  count('discarded')
end

local function take(lane)
  while looks > 0 do
    local line = redis.call('LPOP', list_of(lane))
    if not line then
      if lane ~= 'public' then redis.call('ZREM', P .. 'lanes', lane) end
      return
    end
    local key, foreign = accept(lane, line)
    if key then return key, foreign end
    looks = looks - 1
  end
end

-- Lanes by their last turn, the public list among them.
local function turns()
  local order = {}
  local public = tonumber(redis.call('ZSCORE', P .. 'lanes', 'public') or 0)
  local placed = false
  local known = redis.call('ZRANGE', P .. 'lanes', 0, -1, 'WITHSCORES')
  for i = 1, #known, 2 do
    local lane = known[i]
    if not placed and tonumber(known[i + 1]) >= public then
      order[#order + 1] = 'public'
      placed = true
    end
    if lane ~= 'urgent' and lane ~= 'public' and lane ~= 'alone' then order[#order + 1] = lane end
  end
  if not placed then order[#order + 1] = 'public' end
  return order
end

local order, at

-- The next job of the lanes that take turns.
local function take_in_turn()
  order, at = order or turns(), at or 1
  for _ = 1, #order do
    local lane = order[at]
    at = at % #order + 1
    local key, line = take(lane)
    if key then
      redis.call('ZADD', P .. 'lanes', redis.call('INCR', P .. 'serial'), lane)
      return key, line
    end
  end
end

local function hold(key, token)
  local entry = entry_of(key)
  redis.call('HSET', entry, 'state', 'leased', 'token', token, 'worker', worker, 'started', '0')
  redis.call('ZREM', P .. 'queued', key)
  redis.call('ZADD', P .. 'leases', now + lease, key)
  return lease_fields(entry)
end

ignore_memory_limit()
redis.call('ZADD', P .. 'workers', now, worker)
return once(worker, ARGV[2], function()
  if redis.call('EXISTS', P .. 'paused') == 1 then return 'paused' end
  local answer = {0, 0}
  for i = 6, #ARGV do
    local key, line = take('urgent')
    local lone = false
    if not key and alone and i == 6 then
      key, line = take('alone')
      lone = key ~= nil
    end
    if not key then key, line = take_in_turn() end
    if not key then break end
    local size = line and #line or -1
    for _, value in ipairs({key, ARGV[i], size > largest and '' or line or '', size}) do
      answer[#answer + 1] = value
    end
    for _, value in ipairs(hold(key, ARGV[i])) do answer[#answer + 1] = value end
    if lone then break end
  end
  answer[1] = looks == 0 and 1 or 0
  answer[2] = redis.call('EXISTS', list_of('alone'))
  return answer
end)
