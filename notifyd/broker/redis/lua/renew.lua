-- Ends a topic's epoch because somebody was given an offset of it that is not here: the newest messages were lost.
-- The numbers go on, and the kept messages stay; but nothing proves continuity across this moment.
--
-- KEYS: the topic's hash, its stream.
-- ARGV: the epoch and the offset that somebody was given, the name of an epoch that may begin, and what the server is
-- (topic.lua). Answers 1 where a new epoch began.

local meta, stream = KEYS[1], KEYS[2]
local epoch, offset, fresh, id, previous, durable = ARGV[1], tonumber(ARGV[2]), ARGV[3], ARGV[4], ARGV[5], ARGV[6]

local now = now_ms()
local topic = open_topic(meta, stream, fresh, id, previous, durable, now)
local lacks = topic.epoch == epoch and topic.offset < offset
if lacks then
  topic.epoch, topic.base, topic.changed = fresh, topic.offset, true
end
close_topic(meta, topic, now, false)
return lacks and 1 or 0
