-- Removes a node that has been dead for twice its time. Of many that ask at once, one is answered 1.
--
-- KEYS: the nodes with their times of expiry.
-- ARGV: the node, how long it lives without a further beat (ms), and what the server is (topic.lua).

local expires = redis.call('ZSCORE', KEYS[1], ARGV[1])
if not expires or tonumber(expires) >= now_ms() - tonumber(ARGV[2]) then
  return 0
end
return redis.call('ZREM', KEYS[1], ARGV[1])
