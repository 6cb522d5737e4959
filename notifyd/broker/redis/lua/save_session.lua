-- Keeps a session, unless another node owns it.
--
-- KEYS: the session: o its owner, u its user, r its record.
-- ARGV: the node, user, record, time to live (ms), and what the server is (topic.lua). Answers 1 where it was kept.

local owner = redis.call('HGET', KEYS[1], 'o')
if owner and owner ~= ARGV[1] then
  return 0
end
redis.call('HSET', KEYS[1], 'o', ARGV[1], 'u', ARGV[2], 'r', ARGV[3])
redis.call('PEXPIRE', KEYS[1], ARGV[4])
return 1
