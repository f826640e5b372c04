-- Makes a leased line of the public list that is no job a dead letter.
-- KEYS: P, LIST
-- ARGV: its key 'foreign:<sha1>', token, dead letter's key 'malformed:<sha1>', error (JSON)
-- Returns 1 if it is a dead letter now.
local foreign, token, key, error = unpack(ARGV)
local from, to = entry_of(foreign), entry_of(key)
if not holds(from, token) then return redis.call('EXISTS', to) end
ignore_memory_limit()
local payload = redis.call('HGET', from, 'payload')
redis.call('DEL', from)
redis.call('ZREM', P .. 'leases', foreign)
redis.call('HSET', to, 'payload', string.sub(payload, 1, 2000), 'lane', 'public', 'attempts', 1)
bury(key, to, error, '', clock())
return 1
