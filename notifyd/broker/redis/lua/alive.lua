-- Tells which nodes live. KEYS: the nodes with their times of expiry.

return redis.call('ZRANGEBYSCORE', KEYS[1], '(' .. text(now_ms()), '+inf')
