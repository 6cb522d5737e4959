-- Makes a node the owner of a user's session.
--
-- KEYS: the session (save_session.lua). ARGV: the node, user, and what the server is (topic.lua).
-- Answers the record, who owned it and the time (us); nothing where it is not known, or another user's, whose it then
-- stays.

local owner, user, record = unpack(redis.call('HMGET', KEYS[1], 'o', 'u', 'r'))
if user ~= ARGV[2] then
  return false
end
redis.call('HSET', KEYS[1], 'o', ARGV[1])
return {record, owner, now_us()}
