-- Tells all revocations in force. KEYS: the revocations (revoke.lua).

return redis.call('ZRANGEBYSCORE', KEYS[1], '(' .. redis.call('TIME')[1], '+inf')
