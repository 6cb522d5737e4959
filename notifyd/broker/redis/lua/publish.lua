-- Accepts a message: answers a known key as before; else gives the next offset, keeps, remembers the key, delivers.
--
-- KEYS: the topic's hash, its stream, and where there is one the key's name.
-- ARGV: history (how many messages are kept), their time to live (ms), the name of an epoch that may begin, the packed
-- message, the channel, PUBLISH or SPUBLISH, the key's time to live (ms), and what the server is (topic.lua).
-- Answers epoch ('' without history), offset, and 1 where the key was known.

local meta, stream, key = KEYS[1], KEYS[2], KEYS[3]
local history, ttl, fresh, packed = tonumber(ARGV[1]), tonumber(ARGV[2]), ARGV[3], ARGV[4]
local channel, verb, key_ttl, id, previous, durable = ARGV[5], ARGV[6], ARGV[7], ARGV[8], ARGV[9], ARGV[10]

if key then
  local answer = redis.call('GET', key)
  if answer then
    local epoch, offset = string.match(answer, '^(.*):(%d*)$')
    return {epoch, tonumber(offset) or 0, 1}
  end
end

local now = now_ms()
local epoch, offset = '', ''
if history > 0 then
  local topic = open_topic(meta, stream, fresh, id, previous, durable, now)
  if topic.oldest == 0 then
    topic.oldest, topic.changed = now, true
  end
  topic.offset = topic.offset + 1
  epoch, offset = topic.epoch, text(topic.offset)
  redis.call('XADD', stream, 'MAXLEN', history, offset .. '-0', 't', text(now), 'm', packed)
  if topic.oldest <= now - ttl then
    drop_old(stream, topic, now - ttl)
  end
  local late = topic.kept_until - now - ttl
  if topic.ttl ~= ttl or late < 0 or late > SLACK_MS then
    expire_stream(stream, topic, now, ttl)
  end
  close_topic(meta, topic, now, true)
elseif redis.call('EXISTS', meta, stream) > 0 then -- only then: a server that refuses writes takes messages all the same
  redis.call('UNLINK', meta, stream) -- a message without position: the positions before it prove nothing any more
end
if key then -- before anybody hears of the message: a server that is full, or lacks replicas, refuses this
  redis.call('SET', key, epoch .. ':' .. offset, 'PX', key_ttl)
end
redis.call(verb, channel, 'm' .. epoch .. ':' .. offset .. ':' .. text(now) .. ':' .. packed)
return {epoch, tonumber(offset) or 0, 0}
