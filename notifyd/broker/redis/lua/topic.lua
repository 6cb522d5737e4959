-- What publish.lua and read.lua both know: a topic's position, and which of its messages are still kept.
--
-- A topic is a hash and a stream. The hash:
--   e  its epoch                      o  the newest offset given
--   b  the offset after which the epoch began
--   i  the replication id of the server at the last write
--   a  the oldest kept message was accepted then or later (ms); so long as that is young enough, nobody need look
--   t  the time to live that was applied last (ms)
--   s  when the stream expires (Unix ms)
--   x  when the hash expires (Unix ms)
-- The stream has entries `OFFSET-0` with the fields t, when it was accepted (Unix ms), and m, the message as packed by
-- the node. What is kept are always the newest offsets without a hole.
--
-- What the server is comes last of all arguments: its replication id, the previous one ('' for none), and 1 where a
-- restart loses nothing that it acknowledged.
--
-- Times are those of time.lua, which comes before this. Offsets are exact up to 2^53: Lua's numbers are doubles.

local SLACK_MS = 1000 -- the stream outlives its newest message by this at most: its expiry is set once a second
local IDLE_MS = 7 * 24 * 3600 * 1000 -- a position is remembered for a week without use
local REFRESH_MS = 3600 * 1000 -- and its expiry set once an hour

local function info_says(section, line)
  return string.find(redis.call('INFO', section), line, 1, true) ~= nil
end

-- Takes note of the server's id among those of which it has every write: the set PREFIX:complete, which begins anew when
-- it was promoted, or restarted with a loss. A server does not remember by itself that it was promoted before it
-- restarted. Returns the set's name.
local function note_server(prefix, id, previous, durable)
  local complete = prefix .. ':complete'
  if redis.call('SISMEMBER', complete, id) == 0 then
    if previous ~= '' or durable ~= '1' then
      redis.call('UNLINK', complete)
    end
    redis.call('SADD', complete, id)
  end
  return complete
end

-- Whether this server, whose id is not that of the last write, may lack messages that were acknowledged. It may when
-- that write was before it was promoted, or before it restarted, from a dump or from an append-only file that is not
-- synchronized with every write. It does not when it is `durable`, when it changed its id because its last replica left
-- an hour ago, or when the topic came whole, with its slot of a Cluster.
local function may_lack(topic, meta, id, previous, durable, now)
  if not info_says('cluster', 'cluster_enabled:1') then -- where no set could stand beside all topics
    local complete = note_server(string.match(meta, '^(.-):topic:{'), id, previous, durable)
    if redis.call('SISMEMBER', complete, topic.id) == 1 then
      return false
    elseif previous ~= '' or durable == '1' then
      return true
    end
  elseif topic.id == previous then
    return true
  end
  local uptime = string.match(redis.call('INFO', 'server'), 'uptime_in_seconds:(%d+)')
  local written = topic.kept_until - topic.ttl - SLACK_MS
  return durable ~= '1' and written < now - uptime * 1000 + 1000 -- whole seconds: it may have started a second later
end

-- Reads what is known of a topic. A new epoch, named `fresh`, begins where nothing is known, and where messages may be
-- lacking: then the numbers go on and the kept messages stay, but nothing proves continuity.
local function open_topic(meta, stream, fresh, id, previous, durable, now)
  local known = redis.call('HMGET', meta, 'e', 'o', 'b', 'i', 'a', 't', 's', 'x')
  if not known[1] then
    if redis.call('EXISTS', stream) == 1 then -- a full server refuses what comes first only: that shall be the message
      redis.call('UNLINK', stream)
    end
    return {epoch = fresh, offset = 0, base = 0, id = id, oldest = 0, ttl = 0, kept_until = 0, until_ms = 0, changed = true}
  end
  local topic = {
    epoch = known[1], offset = tonumber(known[2]), base = tonumber(known[3]), id = known[4], oldest = tonumber(known[5]),
    ttl = tonumber(known[6]), kept_until = tonumber(known[7]), until_ms = tonumber(known[8]), changed = false,
  }
  if topic.id ~= id and not info_says('replication', 'master_replid:' .. topic.id) then -- or the caller's id is old
    if may_lack(topic, meta, id, previous, durable, now) then
      topic.epoch, topic.base = fresh, topic.offset
    end
    topic.id, topic.changed = id, true
  end
  return topic
end

-- Writes it back, and keeps it for a week. Of most publishes only the offset changes.
local function close_topic(meta, topic, now, offset_only)
  local wanted = now + math.max(IDLE_MS, topic.ttl + SLACK_MS)
  local expires = topic.until_ms < wanted
  if expires then
    topic.until_ms = wanted + REFRESH_MS
  end
  if topic.changed or expires then
    redis.call('HSET', meta, 'e', topic.epoch, 'o', text(topic.offset), 'b', text(topic.base), 'i', topic.id, 'a',
      text(topic.oldest), 't', text(topic.ttl), 's', text(topic.kept_until), 'x', text(topic.until_ms))
  elseif offset_only then
    redis.call('HSET', meta, 'o', text(topic.offset))
  end
  if expires then
    redis.call('PEXPIREAT', meta, text(topic.until_ms))
  end
end

-- Lets the stream expire when the newest message, accepted at `newest`, has lived its time.
local function expire_stream(stream, topic, newest, ttl)
  topic.kept_until, topic.ttl, topic.changed = newest + ttl + SLACK_MS, ttl, true
  redis.call('PEXPIREAT', stream, text(topic.kept_until))
end

local function offset_of(entry)
  return tonumber(string.match(entry[1], '^%d+'))
end

local function time_of(entry)
  return tonumber(entry[2][2])
end

-- Lets go of every message accepted at `dead` or before. They are the first ones: how many is found by steps that
-- double, then by halves, so that a few cost a few looks and a million cost twenty.
local function drop_old(stream, topic, dead)
  local first = redis.call('XRANGE', stream, '-', '+', 'COUNT', 1)[1]
  if first and time_of(first) <= dead then
    local low, high, step = offset_of(first), topic.offset + 1, 1
    while high - low > 1 do
      local middle = math.min(low + step, math.floor((low + high) / 2))
      local entry = redis.call('XRANGE', stream, text(middle), text(middle))[1]
      if entry and time_of(entry) <= dead then
        low, step = middle, step * 2
      else
        high = middle
      end
    end
    redis.call('XTRIM', stream, 'MINID', text(high))
    first = redis.call('XRANGE', stream, text(high), text(high))[1]
  end
  topic.oldest, topic.changed = first and time_of(first) or 0, true
end
