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
local answers = {}
for i = 5, #ARGV, 4 do
  local key, id, stamp, payload = ARGV[i], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3]
  local entry = entry_of(key)
  local known = redis.call('HMGET', entry, 'state', 'stamp', 'runs', 'force', 'scan', 'lane',
    'next_runs', 'next_scan', 'next_force')
  local state, answer = known[1], 'a'
  if state == 'dead' and run == '' and known[2] == stamp then
    answer = 'd'
  elseif not state or state == 'dead' then
    if state then
      redis.call('ZREM', P .. 'dead', key)
      redis.call('DEL', entry)
    end
    redis.call('HSET', entry, 'state', 'queued', 'id', id, 'payload', payload, 'stamp', stamp,
      'lane', lane, 'force', force, 'scan', scan, 'runs', with_run('', run), 'at', now,
      'home', run == '' and lane or 'stale')
    push(key, lane, payload, now, head)
    answer = 'q'
  elseif state == 'leased' then
    if run ~= '' and force == '0' then
      redis.call('HSET', entry, 'runs', with_run(known[3], run))
    elseif run ~= '' or known[2] ~= stamp then
      -- A run wants it anew, or the source is another one since it was claimed.
      redis.call('HSET', entry, 'next_id', id, 'next_payload', payload, 'next_stamp', stamp,
        'next_lane', lane, 'next_runs', with_run(known[7], run),
        'next_force', (force == '1' or known[9] == '1') and '1' or '0',
        'next_scan', (scan == '1' or known[8] == '1') and '1' or '0')
      answer = 'n'
    end
  elseif run ~= '' or (head and known[6] ~= lane) or (state == 'delayed' and known[2] ~= stamp) then
    -- The older copy stays in its list and is discarded when it is claimed: its id is another.
    redis.call('ZREM', P .. 'delayed', key)
    redis.call('HSET', entry, 'state', 'queued', 'id', id, 'payload', payload, 'stamp', stamp,
      'lane', lane, 'runs', with_run(known[3], run), 'at', now,
      'force', (force == '1' or known[4] == '1') and '1' or '0',
      'scan', (scan == '1' or known[5] == '1') and '1' or '0')
    push(key, lane, payload, now, head)
    answer = 's'
    count('superseded')
  else
    redis.call('HSET', entry, 'stamp', stamp, 'scan', '1')
  end
  if run ~= '' then redis.call('SADD', P .. 'run:' .. run, key) end
  answers[#answers + 1] = answer
end
return table.concat(answers)
