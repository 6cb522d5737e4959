-- Tells the newest versions of the configuration, the newest first, each followed by its number.
--
-- KEYS: the versions (configure.lua). ARGV: how many, and what the server is (topic.lua).

return redis.call('ZREVRANGE', KEYS[1], 0, tonumber(ARGV[1]) - 1, 'WITHSCORES')
