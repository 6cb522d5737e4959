-- Keeps a version of the configuration, unless another one has come first, and tells all nodes.
--
-- KEYS: the versions, by their number.
-- ARGV: the number of the newest so far (0: none), the new one's number, the new one, how many are kept, the channel,
-- what tells of it, PUBLISH or SPUBLISH, and what the server is (topic.lua). Answers 1 where it was kept.

local newest = redis.call('ZREVRANGE', KEYS[1], 0, 0, 'WITHSCORES')[2]
if tonumber(newest or 0) ~= tonumber(ARGV[1]) then
  return 0
end
redis.call('ZADD', KEYS[1], ARGV[2], ARGV[3])
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', string.format('%.0f', tonumber(ARGV[2]) - tonumber(ARGV[4])))
redis.call(ARGV[7], ARGV[5], ARGV[6])
return 1
