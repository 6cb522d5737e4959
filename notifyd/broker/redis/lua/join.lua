-- Counts a session as present on a node. One that is there already keeps its place, wherever it was; on a node that has
-- taken it over later than this one, it stays.
--
-- KEYS: the topic's members, by session: {node, session, user, since, serial, asserted, announced, claim} as MessagePack.
-- ARGV: the node, session, user, since (Unix ms), what announces it ('' for nothing), the channel, PUBLISH or SPUBLISH,
-- when the node took the session over (take_session.lua; 0: it began there), and what the server is (topic.lua).
-- Answers 1 where it was not present.

local key, node, session, user, since = KEYS[1], ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4])
local announcement, channel, verb, claim = ARGV[5], ARGV[6], ARGV[7], tonumber(ARGV[8])

local serial = now_us()
local asserted = math.floor(serial / 1000)
local present = redis.call('HGET', key, session)
if present then
  local entry = cmsgpack.unpack(present)
  if entry[1] ~= node and (entry[8] or 0) > claim then
    return 0
  end
  since, serial = entry[4], entry[5]
end
redis.call('HSET', key, session, cmsgpack.pack({node, session, user, since, serial, asserted, announcement ~= '', claim}))
if not present and announcement ~= '' then
  redis.call(verb, channel, announcement)
end
return present and 0 or 1
