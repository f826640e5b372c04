#!lua flags=allow-oom
-- Gives a foreign producer's leased job its place in the ledger.
-- KEYS: P, LIST
-- ARGV: foreign key, token, real key, id, stamp
-- Returns the tombs and attempts of the real entry when the caller now holds it; false when someone
-- else does, or it is a dead letter: the foreign copy is dropped then.
local foreign, token, key, id, stamp = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local from, to = entry_of(foreign), entry_of(key)
if not holds(from, token) then return false end
local known = redis.call('HMGET', to, 'state', 'tombs', 'attempts', 'recoveries')
local state = known[1]
local expiry = redis.call('ZSCORE', P .. 'leases', foreign)
redis.call('ZREM', P .. 'leases', foreign)
if state == 'leased' or state == 'dead' then
  redis.call('DEL', from)
  count('discarded')
  return false
end
local mine = redis.call('HMGET', from, 'payload', 'worker')
if state then
  redis.call('ZREM', P .. 'queued', key)
  redis.call('ZREM', P .. 'delayed', key)
  redis.call('DEL', from)
  redis.call('HSET', to, 'id', id)
else
  redis.call('RENAME', from, to)
  redis.call('HSET', to, 'id', id, 'stamp', stamp)
end
redis.call('HSET', to, 'state', 'leased', 'token', token, 'worker', mine[2],
  'started', '0')
redis.call('ZADD', P .. 'leases', expiry, key)
return {known[2] or '', known[3] or '0', known[4] or '0'}
