#!lua flags=allow-oom
-- Ends a job that succeeded: its result goes to every waiter and it leaves the ledger, at once.
-- KEYS: P, LIST
-- ARGV: key, token, result (JSON), rows, tokens, milliseconds of computing
-- Returns 0 if the token no longer holds it, 1 when done, 2 when done and queued anew.
local key, token, result = ARGV[1], ARGV[2], ARGV[3]
local entry = entry_of(key)
if not holds(entry, token) then
  count('rejected')
  return 0
end
-- Who computed a sample again has made nothing that Dagster should hear of.
local verify = string.sub(key, 1, 7) == 'verify:'
deliver(key, redis.call('HGET', entry, 'runs'), result, not verify)
count(verify and 'verified' or 'done')
for at, name in ipairs({'rows', 'tokens', 'milliseconds'}) do
  if ARGV[at + 3] ~= '0' then count(name, ARGV[at + 3]) end
end
if renew_wish(key, entry, clock()) then return 2 end
redis.call('DEL', entry)
redis.call('ZREM', P .. 'leases', key)
return 1
