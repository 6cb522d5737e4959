-- The time as all nodes agree on it: the server's.

-- Microseconds: no two scripts run in one.
local function now_us()
  local time = redis.call('TIME')
  return time[1] * 1000000 + time[2]
end

local function now_ms()
  return math.floor(now_us() / 1000)
end

-- Writes a whole number down as Redis takes it: up to 2^53 exact, and never with an exponent.
local function text(number)
  return string.format('%.0f', number)
end
