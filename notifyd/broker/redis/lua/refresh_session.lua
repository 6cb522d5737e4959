-- Prolongs the life of a session that this node owns.
--
-- KEYS: the session (save_session.lua). ARGV: the node, time to live (ms), and what the server is (topic.lua).
-- Answers 1 where it was, 0 where it is not known, or another node's.

if redis.call('HGET', KEYS[1], 'o') ~= ARGV[1] then
  return 0
end
return redis.call('PEXPIRE', KEYS[1], ARGV[2])
