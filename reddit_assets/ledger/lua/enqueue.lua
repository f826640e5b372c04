-- Queues jobs whose outputs are wanted, each at most once.
-- KEYS: P, LIST
-- ARGV: lane, run ('' for a scan), force (0|1), head (0|1), then per job: key, id, stamp, payload
-- Returns one letter per job:
--   q queued         a already queued or in work          s superseded a queued copy
--   n wanted again: in work now, queued again after it    d blocked: a dead letter
local lane, run, force, head = ARGV[1], ARGV[2], ARGV[3], ARGV[4] == '1'
local by_run = run ~= ''
local scan = by_run and '0' or '1'
local now = clock()
local lines, times, superseded = {}, {}, 0

local function either(a, b)
  return (a == '1' or b == '1') and '1' or '0'
end

-- What is pushed goes to one lane: in few commands, since each costs as much as its arguments.
local function flush()
  if #lines == 0 then return end
  redis.call(head and 'LPUSH' or 'RPUSH', list_of(lane), unpack(lines))
  redis.call('ZADD', P .. 'queued', unpack(times))
  lines, times = {}, {}
end

local function push_later(key, id, payload)
  lines[#lines + 1] = line_of(lane, key, id, payload)
  times[#times + 1] = now
  times[#times + 1] = key
  if #lines == 500 then flush() end
end

local function queue_new(key, entry, id, stamp, payload)
  redis.call('HSET', entry, 'state', 'queued', 'id', id, 'payload', payload, 'stamp', stamp,
    'lane', lane, 'force', force, 'scan', scan)
  if by_run then redis.call('HSET', entry, 'runs', with_run('', run), 'home', 'stale') end
  push_later(key, id, payload)
  return 'q'
end

-- A dead letter blocks scans until its input is another one.
local function revive(key, entry, known, id, stamp, payload)
  if not by_run and known.stamp == stamp then return 'd' end
  redis.call('DEL', entry)
  redis.call('ZREM', P .. 'dead', key)
  if known.suspect ~= '1' then return queue_new(key, entry, id, stamp, payload) end
  redis.call('HSET', entry, 'id', id, 'payload', payload, 'stamp', stamp, 'lane', lane,
    'force', force, 'scan', scan, 'runs', with_run('', run), 'suspect', '1')
  requeue(key, entry, now, head)
  return 'q'
end

-- In work. A run waits for it; one that forces, and a scan of another input, want another one.
local function wish(entry, known, id, stamp, payload)
  if by_run and force == '0' then
    redis.call('HSET', entry, 'runs', with_run(known.runs, run))
    return 'a'
  elseif not by_run and known.stamp == stamp then
    return 'a'
  end
  redis.call('HSET', entry, 'next_id', id, 'next_payload', payload, 'next_stamp', stamp,
    'next_lane', lane, 'next_runs', with_run(known.next_runs, run),
    'next_force', either(force, known.next_force), 'next_scan', either(scan, known.next_scan))
  return 'n'
end

-- Queued or delayed already: those who want it now come to those who did. A suspect stays where it
-- is; others move to the caller's lane if that is better.
local function join(key, entry, known, id, stamp, payload)
  local due = by_run or (known.state == 'delayed' and known.stamp ~= stamp)
  local wanted = either(scan, known.scan)
  if known.stamp ~= stamp or known.scan ~= wanted then
    redis.call('HSET', entry, 'stamp', stamp, 'scan', wanted)
  end
  if not (due or (head and known.lane ~= lane)) then return 'a' end
  redis.call('HSET', entry, 'runs', with_run(known.runs, run),
    'force', either(force, known.force))
  superseded = superseded + 1
  if known.suspect ~= '1' then
    -- The older copy stays in its list and is discarded when it is claimed: its id is another.
    if not is_run(known.lane) then redis.call('HSET', entry, 'home', known.lane) end
    redis.call('HSET', entry, 'state', 'queued', 'id', id, 'payload', payload, 'lane', lane)
    redis.call('ZREM', P .. 'delayed', key)
    push_later(key, id, payload)
  elseif known.state == 'delayed' and due then
    redis.call('ZREM', P .. 'delayed', key)
    requeue(key, entry, now, head)
  end
  return 's'
end

local DEAD = {'stamp', 'suspect'}
local LEASED = {'stamp', 'runs', 'next_runs', 'next_scan', 'next_force'}
local WAITING = {'state', 'stamp', 'runs', 'force', 'scan', 'lane', 'suspect'}

respect_memory_limit()
local answers = {}
for i = 5, #ARGV, 4 do
  local key, id, stamp, payload = ARGV[i], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3]
  local entry = entry_of(key)
  local state, answer = redis.call('HGET', entry, 'state'), nil
  if not state then
    answer = queue_new(key, entry, id, stamp, payload)
  elseif state == 'dead' then
    answer = revive(key, entry, read(entry, DEAD), id, stamp, payload)
  elseif state == 'leased' then
    answer = wish(entry, read(entry, LEASED), id, stamp, payload)
  else
    answer = join(key, entry, read(entry, WAITING), id, stamp, payload)
  end
  if by_run then redis.call('SADD', P .. 'run:' .. run, key) end
  answers[#answers + 1] = answer
end
flush()
show_lane(lane)
if superseded > 0 then count('superseded', superseded) end
return table.concat(answers)
