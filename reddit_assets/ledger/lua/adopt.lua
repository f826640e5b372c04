-- Gives a leased line of the public list its place in the ledger.
-- KEYS: P, LIST
-- ARGV: its key 'foreign:<sha1>', token, the job's key, id of our copy that it is ('' if it is
--       none), new id, stamp, the job as our own JSON
-- Returns what a worker must know of the job when the caller now holds it; false when somebody else
-- does or it is a dead letter, when a suspect waits to run alone, or when the copy is superseded:
-- the line is dropped then.
local foreign, token, key, copy, id, stamp, payload = unpack(ARGV)
local from, to = entry_of(foreign), entry_of(key)
if holds(to, token) then return lease_fields(to) end -- sent again: the reply was lost
if not holds(from, token) then return false end
ignore_memory_limit()
local known = redis.call('HMGET', to, 'state', 'id', 'suspect')
local state = known[1]
local wanted
if copy ~= '' then
  wanted = state == 'queued' and known[2] == copy
else
  wanted = not state or ((state == 'queued' or state == 'delayed') and known[3] ~= '1')
end
local expiry = redis.call('ZSCORE', P .. 'leases', foreign)
local worker = redis.call('HGET', from, 'worker')
redis.call('DEL', from)
redis.call('ZREM', P .. 'leases', foreign)
if not wanted then
  count('discarded')
  return false
end
redis.call('ZREM', P .. 'queued', key)
redis.call('ZREM', P .. 'delayed', key)
if not state then
  redis.call('HSET', to, 'stamp', stamp, 'lane', 'public', 'home', 'public', 'force', '0',
    'scan', '1', 'runs', '')
end
if copy == '' then redis.call('HSET', to, 'id', id, 'payload', payload) end
redis.call('HSET', to, 'state', 'leased', 'token', token, 'worker', worker, 'started', '0')
redis.call('ZADD', P .. 'leases', expiry, key)
return lease_fields(to)
