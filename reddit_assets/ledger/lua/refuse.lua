-- Makes a leased line of the public list that is no job a dead letter.
-- KEYS: P, LIST
-- ARGV: its key 'foreign:<sha1>', token, dead letter's key 'malformed:<sha1>', error (JSON),
--       together (1: all lines with this key are one dead letter)
-- Returns 1 if it is a dead letter now.
local foreign, token, key, error, together = unpack(ARGV)
local KEPT, SHOWN = 100000, 3 -- lines of one dead letter
local from, to = entry_of(foreign), entry_of(key)
if not holds(from, token) then return redis.call('EXISTS', to) end
ignore_memory_limit()
local payload = redis.call('HGET', from, 'payload')
redis.call('DEL', from)
redis.call('ZREM', P .. 'leases', foreign)
local shown = string.sub(payload, 1, 2000)
if together == '1' then
  local lines = redis.call('HINCRBY', to, 'lines', 1)
  if lines <= KEPT then redis.call('RPUSH', refused_lines(key), payload) end
  if lines > 1 then
    if lines <= SHOWN then
      redis.call('HSET', to, 'payload', redis.call('HGET', to, 'payload') .. '\n' .. shown)
    end
    return 1
  end
end
redis.call('HSET', to, 'payload', shown, 'lane', 'public', 'attempts', 1)
bury(key, to, error, '', clock())
return 1
