-- Prelude of every script. One queue is the public list LIST and the keys below the prefix P,
-- which is '{' .. LIST .. '}:', so that all of a queue's keys share one cluster slot.
--
-- key                type    what                                                written by
-- LIST               list    jobs as JSON that plain BLPOP consumers can do      enqueue, requeues
-- P lane:<lane>      list    jobs as JSON that only our workers take             enqueue, requeues
-- P lanes            zset    lane -> serial of its last turn (fair rotation)     push, claim
-- P serial           string  counts turns                                        claim
-- P job:<key>        hash    the ledger: one entry per wanted output             all
-- P queued           zset    key -> time it was queued (ms)                      push, claim
-- P delayed          zset    key -> time its retry is due (ms)                   fail, reap
-- P leases           zset    key -> time its lease expires (ms)                  claim, renew
-- P dead             zset    key -> time it died (ms)                            fail, reap, claim
-- P runs             zset    run -> time its lease expires (ms)                  run_open
-- P run:<run>        set     keys that the run waits for                         enqueue, ack
-- P results:<run>    stream  field r: results for the run, as JSON               ack, fail
-- P outbox           stream  field r: results that no run waits for              ack, withdraw
-- P counters         hash    totals since the queue was made                     all
-- P paused           string  present while nothing new may be claimed            queue.py
-- P workers          zset    worker -> time it was last seen (ms)                claim, renew
-- P worker:<worker>  hash    host, process, backend, … of a worker; expires      queue.py
-- P reaper           string  the worker that reaps now; expires                  queue.py
-- P reporters        zset    reporter -> time its connection slot expires (ms)   slot
--
-- A ledger entry is in exactly one of queued, delayed, leases and dead. Its fields:
--   state  queued | delayed | leased | dead
--   id     of the current copy; a copy in a list with another id is superseded
--   payload, lane, stamp (what the input looked like)
--   force  1: make the output even if it is fresh
--   scan   1: a scan wants it, whatever runs do;  home: the lane it had before runs wanted it
--   runs   waiting runs, each followed by a space
--   attempts (exceptions), recoveries (deaths while started), tombs (tokens of dead leases)
--   token, worker, started (1 once computing): while leased
--   next_id, next_payload, next_stamp, next_lane, next_force, next_scan, next_runs: wanted anew
--   error (JSON): of the last failure

local P, LIST = KEYS[1], KEYS[2]

local function clock()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

local function count(name, amount)
  redis.call('HINCRBY', P .. 'counters', name, amount or 1)
end

local function entry_of(key)
  return P .. 'job:' .. key
end

local function list_of(lane)
  if lane == 'public' then return LIST end
  return P .. 'lane:' .. lane
end

-- Lets a lane take its turns; the public list always does.
local function show_lane(lane)
  if lane ~= 'public' then
    redis.call('ZADD', P .. 'lanes', 'NX', redis.call('GET', P .. 'serial') or 0, lane)
  end
end

-- Puts a ledger entry's copy into its lane. `head`: before all others.
local function push(key, lane, payload, now, head)
  redis.call(head and 'LPUSH' or 'RPUSH', list_of(lane), payload)
  redis.call('ZADD', P .. 'queued', now, key)
  show_lane(lane)
end

local function runs_in(text)
  local runs = {}
  for run in string.gmatch(text or '', '%S+') do runs[#runs + 1] = run end
  return runs
end

local function with_run(text, run)
  if run == '' then return text or '' end
  for _, known in ipairs(runs_in(text)) do
    if known == run then return text end
  end
  return (text or '') .. run .. ' '
end

local function without_run(text, run)
  local rest = ''
  for _, known in ipairs(runs_in(text)) do
    if known ~= run then rest = rest .. known .. ' ' end
  end
  return rest
end

-- Gives a result to every open run that waits; `outbox`: to the outbox when none does.
local function deliver(key, runs, result, outbox)
  local delivered = 0
  for _, run in ipairs(runs_in(runs)) do
    redis.call('SREM', P .. 'run:' .. run, key)
    if redis.call('ZSCORE', P .. 'runs', run) then
      redis.call('XADD', P .. 'results:' .. run, '*', 'r', result)
      delivered = delivered + 1
    end
  end
  if outbox and delivered == 0 then
    redis.call('XADD', P .. 'outbox', '*', 'r', result)
  end
  return delivered
end

-- The lane that an entry without waiting runs goes back to.
local function resting_lane(entry, lane)
  if string.sub(lane, 1, 4) == 'run:' then
    return redis.call('HGET', entry, 'home') or 'stale'
  end
  return lane
end

-- Makes a leased entry queued again for those who want it anew. Returns whether any do.
local function renew_wish(key, entry, now)
  local wish = redis.call('HMGET', entry, 'next_id', 'next_payload', 'next_stamp', 'next_lane',
    'next_force', 'next_scan', 'next_runs')
  if not wish[1] then return false end
  redis.call('DEL', entry)
  redis.call('ZREM', P .. 'leases', key)
  redis.call('HSET', entry, 'state', 'queued', 'id', wish[1], 'payload', wish[2], 'stamp', wish[3],
    'lane', wish[4], 'force', wish[5], 'scan', wish[6], 'runs', wish[7], 'home', 'stale')
  push(key, wish[4], wish[2], now, false)
  return true
end

-- Moves an entry to the dead letters. `error`: JSON text.
local function bury(key, entry, error, now)
  redis.call('HSET', entry, 'state', 'dead', 'error', error)
  redis.call('HDEL', entry, 'token', 'worker', 'started')
  redis.call('ZREM', P .. 'leases', key)
  redis.call('ZADD', P .. 'dead', now, key)
  count('dead')
end

-- Whether `token` holds the lease of the entry.
local function holds(entry, token)
  local found = redis.call('HMGET', entry, 'state', 'token')
  return found[1] == 'leased' and found[2] == token
end
