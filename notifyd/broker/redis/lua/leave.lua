-- Counts sessions as gone, those that are still this node's: one that has joined on another node meanwhile stays.
--
-- KEYS: the topic's members (join.lua).
-- ARGV: the node, the age from which on it counts (ms since the node said so), the channel, PUBLISH or SPUBLISH, then
-- for each session its name and what announces it ('' for nothing), and what the server is (topic.lua).
-- Answers how many were present and are gone.

local key, node, age, channel, verb = KEYS[1], ARGV[1], tonumber(ARGV[2]), ARGV[3], ARGV[4]

local newest = now_ms() - age
local gone = 0
for place = 5, #ARGV - 3, 2 do
  local session, announcement = ARGV[place], ARGV[place + 1]
  local present = redis.call('HGET', key, session)
  local entry = present and cmsgpack.unpack(present)
  if entry and entry[1] == node and entry[6] <= newest then
    redis.call('HDEL', key, session)
    gone = gone + 1
    if announcement ~= '' then
      redis.call(verb, channel, announcement)
    end
  end
end
return gone
