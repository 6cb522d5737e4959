-- Reads what a topic keeps after a position. A topic that is not known gets its epoch now, so that it has a top.
--
-- KEYS: the topic's hash, its stream.
-- ARGV: history (how many messages are kept), their time to live (ms), the name of an epoch that may begin, since
-- ('earliest', 'latest' or 'after'), epoch and offset for 'after', limit, and what the server is (topic.lua).
-- Answers epoch, top, base, 1 where it is continuous, 1 where there is more, and the stream's entries.

local PAGE_BYTES = 2 * 1024 * 1024
local PORTION = 50 -- entries looked at before their bytes are counted

local meta, stream = KEYS[1], KEYS[2]
local history, ttl, fresh, since, epoch = tonumber(ARGV[1]), tonumber(ARGV[2]), ARGV[3], ARGV[4], ARGV[5]
local after, limit, id, previous, durable = tonumber(ARGV[6]), tonumber(ARGV[7]), ARGV[8], ARGV[9], ARGV[10]

local now = now_ms()
local topic = open_topic(meta, stream, fresh, id, previous, durable, now)

-- What this retention no longer covers goes now, whatever the one of the last publish was.
redis.call('XTRIM', stream, 'MAXLEN', history)
if topic.oldest ~= 0 and topic.oldest <= now - ttl then
  drop_old(stream, topic, now - ttl)
end
if topic.ttl ~= ttl then
  local newest = redis.call('XREVRANGE', stream, '+', '-', 'COUNT', 1)[1]
  if newest then
    expire_stream(stream, topic, time_of(newest), ttl)
  end
end
close_topic(meta, topic, now, false)

local trimmed = topic.offset - redis.call('XLEN', stream)
local continuous = true
if since == 'latest' then
  after = topic.offset
elseif since == 'earliest' then
  after, continuous = trimmed, trimmed <= topic.base
elseif epoch ~= topic.epoch or after < trimmed or after > topic.offset then
  after, continuous = topic.offset, false
end

-- Large messages make a short page: nobody's question fills the memory of both sides, or holds up all others for long.
local entries, bytes = {}, 0
while #entries < limit and bytes < PAGE_BYTES and after + #entries < topic.offset do
  local count = math.min(limit - #entries, PORTION)
  for _, entry in ipairs(redis.call('XRANGE', stream, text(after + #entries + 1), '+', 'COUNT', count)) do
    bytes = bytes + #entry[2][4]
    entries[#entries + 1] = entry
  end
end
local more = after + #entries < topic.offset
return {topic.epoch, topic.offset, topic.base, continuous and 1 or 0, more and 1 or 0, entries}
