-- Says that a node lives, and tells of the others.
--
-- KEYS: the nodes with their times of expiry.
-- ARGV: the node, how long it lives without a further beat (ms), and what the server is (topic.lua), which is noted
-- before it can restart.
-- Answers 1 where the node was alive until now, those that live, and those that have been dead for as long again.

local now = now_ms()
local node, ttl = ARGV[1], tonumber(ARGV[2])

if not info_says('cluster', 'cluster_enabled:1') then
  note_server(string.match(KEYS[1], '^(.*):{nodes}$'), ARGV[3], ARGV[4], ARGV[5])
end
local expires = redis.call('ZSCORE', KEYS[1], node)
local known = expires and tonumber(expires) > now
redis.call('ZADD', KEYS[1], text(now + ttl), node)
return {
  known and 1 or 0,
  redis.call('ZRANGEBYSCORE', KEYS[1], '(' .. text(now), '+inf'),
  redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', '(' .. text(now - ttl)),
}
