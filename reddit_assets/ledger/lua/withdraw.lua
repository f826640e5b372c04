-- Takes a run off the waiters: jobs that nobody else wants leave the queue.
-- KEYS: P, LIST
-- ARGV: run, largest number of keys or results per call
-- Returns {withdrawn, kept, left}: call again while left > 0.
local run, limit = ARGV[1], tonumber(ARGV[2])
local now, withdrawn, kept = clock(), 0, 0
local set, own_lane, results = P .. 'run:' .. run, 'run:' .. run, P .. 'results:' .. run

-- The lane of those that stay when the run's own goes.
local function next_lane(runs, home)
  return runs ~= '' and ('run:' .. runs_in(runs)[1]) or home or 'stale'
end

local function leave_waiting(key, entry, known)
  local runs = without_run(known.runs, run)
  if runs == '' and known.scan ~= '1' then
    redis.call('DEL', entry)
    redis.call('ZREM', P .. 'queued', key)
    redis.call('ZREM', P .. 'delayed', key)
    withdrawn = withdrawn + 1
    return
  end
  kept = kept + 1
  redis.call('HSET', entry, 'runs', runs)
  if known.lane == own_lane then
    local lane = next_lane(runs, known.home)
    redis.call('HSET', entry, 'lane', lane)
    if runs == '' then redis.call('HSET', entry, 'force', '0') end
    if known.state == 'queued' then push(key, lane, known.id, known.payload, now, false) end
  end
end

local function leave_leased(entry, known)
  kept = kept + 1
  redis.call('HSET', entry, 'runs', without_run(known.runs, run))
  if not known.next_runs then return end
  local runs = without_run(known.next_runs, run)
  if runs == '' and known.next_scan ~= '1' then
    redis.call('HDEL', entry, 'next_id', 'next_payload', 'next_stamp', 'next_lane',
      'next_force', 'next_scan', 'next_runs')
  else
    redis.call('HSET', entry, 'next_runs', runs)
    if known.next_lane == own_lane then
      redis.call('HSET', entry, 'next_lane', next_lane(runs))
    end
  end
end

ignore_memory_limit()
redis.call('ZREM', P .. 'runs', run)
for _, key in ipairs(redis.call('SPOP', set, limit)) do
  local entry = entry_of(key)
  local known = read(entry, {'state', 'runs', 'scan', 'payload', 'id', 'lane', 'home', 'next_runs',
    'next_scan', 'next_lane'})
  if known.state == 'queued' or known.state == 'delayed' then
    leave_waiting(key, entry, known)
  elseif known.state == 'leased' then
    leave_leased(entry, known)
  end
end
if redis.call('SCARD', set) > 0 then return {withdrawn, kept, 1} end
redis.call('DEL', set, list_of(own_lane))
redis.call('ZREM', P .. 'lanes', own_lane)
-- What was done for the run but not recorded in it is reported without a run. The run may have
-- recorded it just before it died: the reporter looks it up first.
for _, item in ipairs(redis.call('XRANGE', results, '-', '+', 'COUNT', limit)) do
  redis.call('XADD', P .. 'outbox', '*', 'uncertain', '1', unpack(item[2]))
  redis.call('XDEL', results, item[1])
end
local left = redis.call('XLEN', results)
if left == 0 then redis.call('DEL', results) end
return {withdrawn, kept, left}
