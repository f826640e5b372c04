-- Prelude of every script. One queue is the public list LIST and the keys below the prefix P,
-- which is '{' .. LIST .. '}:', so that all of a queue's keys share one cluster slot.
--
-- key                type    what                                                written by
-- LIST               list    jobs as JSON that plain BLPOP consumers can do      enqueue, requeues
-- P lane:<lane>      list    '<id> <key>' that only our workers take             enqueue, requeues
-- P lanes            zset    lane -> serial of its last turn (fair rotation)     push, claim
-- P serial           string  counts turns                                        claim
-- P job:<key>        hash    the ledger: one entry per wanted output             all
-- P queued           zset    key -> time it was queued (ms)                      push, claim
-- P delayed          zset    key -> time its retry is due (ms)                   fail, reap, release
-- P leases           zset    key -> time its lease expires (ms)                  claim, renew
-- P dead             zset    key -> time it died (ms)                            fail, crashed, refuse
-- P refused:<key>    list    all lines that a dead letter is made of              refuse
-- P runs             zset    run -> time its lease expires (ms)                  run
-- P run:<run>        set     keys that the run waits for                         enqueue, acknowledge
-- P results:<run>    stream  field r: results for the run, as JSON               acknowledge, fail
-- P outbox           stream  field r: results that no run waits for              acknowledge, withdraw
-- P rejected         stream  entries of the two that were no results, the last   entries.py
-- P reply:<worker>   string  request and answer of its last call; expires        once
-- P counters         hash    totals since the queue was made                     all
-- P samples          list    '<time (ms)> <counters>', four a minute for an hour    reap
-- P paused           string  present while nothing new may be claimed            operations.py
-- P workers          zset    worker -> time it was last seen (ms)                claim, renew
-- P worker:<worker>  hash    host, process, backend, … of a worker; expires      announce
-- P reaper           string  the worker that reaps now; expires                  lead
-- P identity         string  a random name of this queue                         operations.py
-- P alerts           hash    what the webhook was sent                                   alerts.py
-- P alerter          string  the reporter that sends it; expires                        alerts.py
-- P format           string  version of all this; a worker of an older one refuses        server.py
-- P reporters        zset    reporter -> time its connection slot expires (ms)   slot
--
-- Lanes: 'urgent' goes before all others; 'alone' holds suspects, of which a worker takes one at a
-- time; the public list, 'stale' and one 'run:<run>' per run take turns.
--
-- A ledger entry is in exactly one of queued, delayed, leases and dead. Its fields:
--   state  queued | delayed | leased | dead
--   id     of the current copy; a copy in a list with another id is superseded
--   payload (the job as JSON), lane, stamp (what the input looked like)
--   force  1: make the output even if it is fresh
--   scan   1: a scan wants it, whatever runs do;  home: the lane it had before runs wanted it
--   runs   waiting runs, each followed by a space
--   attempts (exceptions), crashes (its process died while it was alone there), evictions (its
--   whole worker vanished), suspect (1: it must run alone), tombs (tokens of dead leases)
--   token, worker, started (1 once computing): while leased
--   next_id, next_payload, next_stamp, next_lane, next_force, next_scan, next_runs: while leased,
--   the wish for another computation after this one
--   error (JSON): of the last failure
--   lines  of a dead letter that stands for many lines: how many
-- An entry 'foreign:<sha1>' is a line of the public list that is none of our copies: it is leased
-- until `adopt` gives it its key or `refuse` makes it the dead letter 'malformed:<sha1>'.

local P, LIST = KEYS[1], KEYS[2]

-- Redis asks whether a script may use more memory at its first write alone, and DEL may always.
-- What ends work calls this first: it goes on under maxmemory.
local function ignore_memory_limit()
  redis.call('DEL', P .. 'nothing')
end

local function count(name, amount)
  redis.call('HINCRBY', P .. 'counters', name, amount or 1)
end

-- What adds work calls this first: under maxmemory it is refused before it has written anything.
local function respect_memory_limit()
  count('superseded', 0)
end

-- A client sends a call again when its reply was lost: the answer is then the same, and the work
-- is not repeated. `request`: 16 characters.
local function once(worker, request, work)
  local name = P .. 'reply:' .. worker
  local last = redis.call('GET', name)
  if last and string.sub(last, 1, 16) == request then
    return cmsgpack.unpack(string.sub(last, 17))
  end
  local answer = work()
  redis.call('SET', name, request .. cmsgpack.pack(answer), 'PX', 60000)
  return answer
end

local function clock()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

local function entry_of(key)
  return P .. 'job:' .. key
end

-- Some fields of an entry by name; those that are not there are nil.
local function read(entry, names)
  local known = {}
  for at, value in ipairs(redis.call('HMGET', entry, unpack(names))) do
    known[names[at]] = value or nil
  end
  return known
end

local function list_of(lane)
  if lane == 'public' then return LIST end
  return P .. 'lane:' .. lane
end

-- What a list holds for a job.
local function line_of(lane, key, id, payload)
  if lane == 'public' then return payload end
  return id .. ' ' .. key
end

local function is_foreign(key)
  return string.sub(key, 1, 8) == 'foreign:'
end

-- The lines that one dead letter stands for, kept for a retry.
local function refused_lines(key)
  return P .. 'refused:' .. key
end

local function is_run(lane)
  return string.sub(lane, 1, 4) == 'run:'
end

-- Lets a lane take its turns; the public list always does.
local function show_lane(lane)
  if lane ~= 'public' then
    redis.call('ZADD', P .. 'lanes', 'NX', redis.call('GET', P .. 'serial') or 0, lane)
  end
end

-- Puts a queued entry's copy into its lane. `head`: before all others.
local function push(key, lane, id, payload, now, head)
  redis.call(head and 'LPUSH' or 'RPUSH', list_of(lane), line_of(lane, key, id, payload))
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
end

-- Makes the wish for another computation the entry's present one; `waiting`: runs that wait for it
-- as well. Returns whether there was a wish.
local function take_wish(entry, waiting)
  local wish = redis.call('HMGET', entry, 'next_id', 'next_payload', 'next_stamp', 'next_lane',
    'next_force', 'next_scan', 'next_runs', 'stamp')
  if not wish[1] then return false end
  local runs = wish[7] or ''
  for _, run in ipairs(runs_in(waiting)) do runs = with_run(runs, run) end
  redis.call('HSET', entry, 'id', wish[1], 'payload', wish[2], 'stamp', wish[3], 'lane', wish[4],
    'force', wish[5], 'scan', wish[6], 'runs', runs, 'home', 'stale')
  redis.call('HDEL', entry, 'next_id', 'next_payload', 'next_stamp', 'next_lane', 'next_force',
    'next_scan', 'next_runs')
  -- Exceptions say nothing of another content. Crashes are kept: only a success forgives them.
  if wish[3] ~= wish[8] then redis.call('HDEL', entry, 'attempts') end
  return true
end

-- Ends a lease without an output. The next computation serves those who wanted another one, too.
-- Returns whether there were any.
-- `clean`: its holder has deleted its temporary files.
local function end_lease(key, entry, clean)
  local known = redis.call('HMGET', entry, 'tombs', 'token', 'runs')
  if known[2] and not clean then
    redis.call('HSET', entry, 'tombs', (known[1] or '') .. known[2] .. ' ')
  end
  redis.call('HDEL', entry, 'token', 'worker', 'started')
  redis.call('ZREM', P .. 'leases', key)
  return take_wish(entry, known[3])
end

-- Queues an entry that is in no other place, in the lane where it belongs now.
local function requeue(key, entry, now, head)
  local known = redis.call('HMGET', entry, 'id', 'payload', 'lane', 'runs', 'suspect', 'home')
  local lane = known[3] or 'public'
  if is_foreign(key) then
    redis.call('DEL', entry)
    redis.call('LPUSH', LIST, known[2])
    return
  elseif known[5] == '1' then
    lane = 'alone'
  elseif is_run(lane) and (known[4] or '') == '' then
    lane = known[6] or 'stale'
  end
  redis.call('HSET', entry, 'state', 'queued', 'lane', lane)
  push(key, lane, known[1], known[2], now, head)
end

-- Lets an entry that is in no other place wait, and be queued by the reaper.
local function delay(key, entry, due)
  redis.call('HSET', entry, 'state', 'delayed')
  redis.call('ZADD', P .. 'delayed', due, key)
end

-- Makes an entry that is in no other place a dead letter. `error`, `result`: JSON.
local function bury(key, entry, error, result, now)
  deliver(key, redis.call('HGET', entry, 'runs'), result, false)
  redis.call('HSET', entry, 'state', 'dead', 'error', error, 'runs', '')
  redis.call('ZADD', P .. 'dead', now, key)
  count('dead')
end

-- Whether `token` holds the lease of the entry.
local function holds(entry, token)
  local found = redis.call('HMGET', entry, 'state', 'token')
  return found[1] == 'leased' and found[2] == token
end

-- What a worker must know of the job that it has leased.
local function lease_fields(entry)
  local known = redis.call('HMGET', entry, 'id', 'stamp', 'force', 'attempts', 'crashes',
    'evictions', 'suspect', 'tombs')
  return {known[1] or '', known[2] or '', known[3] or '0', known[4] or '0', known[5] or '0',
    known[6] or '0', known[7] or '0', known[8] or ''}
end
