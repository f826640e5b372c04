#!lua
-- Queues jobs whose outputs are wanted, each at most once.
-- KEYS: P, LIST
-- ARGV: lane, run ('' for a scan), force (0|1), head (0|1), then per job: key, id, stamp, payload
-- Returns one letter per job:
--   q queued         a already queued or in work       s superseded a queued copy
--   n wanted anew: in work now, queued again after it  d blocked: a dead letter
local lane, run, force, head = ARGV[1], ARGV[2], ARGV[3], ARGV[4] == '1'
local scan = run == '' and '1' or '0'
local now = clock()
local answers, pushed, times, superseded = {}, {}, {}, 0

-- What is pushed goes to one lane: in few commands, since each costs as much as its arguments.
local function flush()
  if #pushed == 0 then return end
  redis.call(head and 'LPUSH' or 'RPUSH', list_of(lane), unpack(pushed))
  redis.call('ZADD', P .. 'queued', unpack(times))
  pushed, times = {}, {}
end

local function push_later(key, payload)
  pushed[#pushed + 1] = payload
  times[#times + 1] = now
  times[#times + 1] = key
  if #pushed == 500 then flush() end
end

for i = 5, #ARGV, 4 do
  local key, id, stamp, payload = ARGV[i], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3]
  local entry = entry_of(key)
  local state, answer = redis.call('HGET', entry, 'state'), 'a'
  if not state then
    redis.call('HSET', entry, 'state', 'queued', 'id', id, 'payload', payload, 'stamp', stamp,
      'lane', lane, 'force', force, 'scan', scan)
    if run ~= '' then redis.call('HSET', entry, 'runs', with_run('', run), 'home', 'stale') end
    push_later(key, payload)
    answer = 'q'
  else
    local known = redis.call('HMGET', entry, 'stamp', 'runs', 'force', 'scan', 'lane', 'next_runs',
      'next_scan', 'next_force')
    if state == 'dead' and run == '' and known[1] == stamp then
      answer = 'd'
    elseif state == 'dead' then
      redis.call('ZREM', P .. 'dead', key)
      redis.call('DEL', entry)
      redis.call('HSET', entry, 'state', 'queued', 'id', id, 'payload', payload, 'stamp', stamp,
        'lane', lane, 'force', force, 'scan', scan, 'runs', with_run('', run),
        'home', run == '' and lane or 'stale')
      push_later(key, payload)
      answer = 'q'
    elseif state == 'leased' then
      if run ~= '' and force == '0' then
        redis.call('HSET', entry, 'runs', with_run(known[2], run))
      elseif run ~= '' or known[1] ~= stamp then
        -- A run wants it anew, or the source is another one since it was claimed.
        redis.call('HSET', entry, 'next_id', id, 'next_payload', payload, 'next_stamp', stamp,
          'next_lane', lane, 'next_runs', with_run(known[6], run),
          'next_force', (force == '1' or known[8] == '1') and '1' or '0',
          'next_scan', (scan == '1' or known[7] == '1') and '1' or '0')
        answer = 'n'
      end
    elseif run ~= '' or (head and known[5] ~= lane) or (state == 'delayed' and known[1] ~= stamp)
    then
      -- The older copy stays in its list and is discarded when it is claimed: its id is another.
      redis.call('ZREM', P .. 'delayed', key)
      redis.call('HSET', entry, 'state', 'queued', 'id', id, 'payload', payload, 'stamp', stamp,
        'lane', lane, 'runs', with_run(known[2], run),
        'force', (force == '1' or known[3] == '1') and '1' or '0',
        'scan', (scan == '1' or known[4] == '1') and '1' or '0')
      if string.sub(known[5], 1, 4) ~= 'run:' then
        redis.call('HSET', entry, 'home', known[5])
      end
      push_later(key, payload)
      answer = 's'
      superseded = superseded + 1
    else
      redis.call('HSET', entry, 'stamp', stamp, 'scan', '1')
    end
  end
  if run ~= '' then redis.call('SADD', P .. 'run:' .. run, key) end
  answers[#answers + 1] = answer
end
flush()
show_lane(lane)
if superseded > 0 then count('superseded', superseded) end
return table.concat(answers)
