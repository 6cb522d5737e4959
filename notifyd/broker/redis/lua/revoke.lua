-- Keeps a revocation until its time, and forgets all whose time is over.
--
-- KEYS: the revocations, by when they may be forgotten (Unix seconds).
-- ARGV: that time, the revocation, and what the server is (topic.lua).

local now = redis.call('TIME')[1]
redis.call('ZADD', KEYS[1], ARGV[1], ARGV[2])
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now)
local last = redis.call('ZREVRANGE', KEYS[1], 0, 0, 'WITHSCORES')[2]
if last then
  redis.call('EXPIREAT', KEYS[1], string.format('%.0f', math.ceil(tonumber(last)) + 1))
end
return 1
