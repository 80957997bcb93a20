-- The token bucket that many articles show, in the form that they show: a hash of two fields, and the time as an argument.
--
-- KEYS[1]   the bucket
-- ARGV      capacity, units a second, now in seconds, cost
local capacity, rate = tonumber(ARGV[1]), tonumber(ARGV[2])
local now, cost = tonumber(ARGV[3]), tonumber(ARGV[4])
local bucket = redis.call('HMGET', KEYS[1], 'tokens', 'timestamp')
local tokens = tonumber(bucket[1]) or capacity
local timestamp = tonumber(bucket[2]) or now
tokens = math.min(capacity, tokens + math.max(0, now - timestamp) * rate)
local allowed = 0
if tokens >= cost then
  tokens = tokens - cost
  allowed = 1
end
redis.call('HMSET', KEYS[1], 'tokens', tokens, 'timestamp', now)
redis.call('EXPIRE', KEYS[1], 3600)
return { allowed, tostring(tokens) }
