#!lua flags=allow-oom
-- Takes a run off the waiters: jobs that nobody else wants leave the queue.
-- KEYS: P, LIST
-- ARGV: run, largest number of keys per call
-- Returns {withdrawn, kept, left}: call again while left > 0.
local run, limit = ARGV[1], tonumber(ARGV[2])
local now, withdrawn, kept = clock(), 0, 0
local set, lane_of_run = P .. 'run:' .. run, 'run:' .. run
redis.call('ZREM', P .. 'runs', run)
for _, key in ipairs(redis.call('SPOP', set, limit)) do
  local entry = entry_of(key)
  local known = redis.call('HMGET', entry, 'state', 'runs', 'scan', 'payload', 'lane',
    'next_runs', 'next_scan')
  local state, runs = known[1], without_run(known[2], run)
  if state == 'queued' or state == 'delayed' then
    if runs == '' and known[3] ~= '1' then
      redis.call('DEL', entry)
      redis.call('ZREM', P .. 'queued', key)
      redis.call('ZREM', P .. 'delayed', key)
      withdrawn = withdrawn + 1
    else
      kept = kept + 1
      local lane = known[5]
      redis.call('HSET', entry, 'runs', runs)
      if lane == lane_of_run then
        lane = runs ~= '' and ('run:' .. runs_in(runs)[1]) or resting_lane(entry, lane)
        redis.call('HSET', entry, 'lane', lane)
        if runs == '' then redis.call('HSET', entry, 'force', '0') end
        if state == 'queued' then push(key, lane, known[4], now, false) end
      end
    end
  elseif state == 'leased' then
    kept = kept + 1
    redis.call('HSET', entry, 'runs', runs)
    if known[6] then
      local anew = without_run(known[6], run)
      if anew == '' and known[7] ~= '1' then
        redis.call('HDEL', entry, 'next_id', 'next_payload', 'next_stamp', 'next_lane',
          'next_force', 'next_scan', 'next_runs')
      else
        redis.call('HSET', entry, 'next_runs', anew)
        if redis.call('HGET', entry, 'next_lane') == lane_of_run then
          redis.call('HSET', entry, 'next_lane',
            anew ~= '' and ('run:' .. runs_in(anew)[1]) or 'stale')
        end
      end
    end
  end
end
local left = redis.call('SCARD', set)
if left == 0 then
  redis.call('DEL', set, list_of(lane_of_run))
  redis.call('ZREM', P .. 'lanes', lane_of_run)
  -- What was done for the run but not recorded in it is reported without a run. The run may have
  -- recorded it just before it died: the reporter looks it up first.
  local stream = P .. 'results:' .. run
  for _, item in ipairs(redis.call('XRANGE', stream, '-', '+')) do
    redis.call('XADD', P .. 'outbox', '*', 'r', item[2][2], 'uncertain', '1')
  end
  redis.call('DEL', stream)
end
return {withdrawn, kept, left}
