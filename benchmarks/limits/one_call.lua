-- All that one request asks, in a call of its own: every bucket is charged or none is, and one token is looked up.
--
-- KEYS      the buckets, then the token's name if there is one
-- ARGV[1]   the number of buckets; then of each its cost and its capacity, in microseconds
--
-- Answers   { admitted 0|1, revoked 0|1, now, state of bucket 1 before, state of bucket 2 before, ... }
local count = tonumber(ARGV[1])
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000000 + tonumber(time[2])
local answer = { 1, 0, now }
local after = {}
for i = 1, count do
  local cost, capacity = tonumber(ARGV[2 * i]), tonumber(ARGV[2 * i + 1])
  local state = tonumber(redis.call('GET', KEYS[i]) or 0)
  answer[3 + i] = state
  after[i] = math.min(math.max(state, now), now + capacity) + cost
  if after[i] > now + capacity then answer[1] = 0 end
end
if answer[1] == 1 then
  for i = 1, count do
    if after[i] > now then
      redis.call('SET', KEYS[i], string.format('%.0f', after[i]), 'PX', math.ceil((after[i] - now) / 1000))
    end
  end
end
if KEYS[count + 1] then answer[2] = redis.call('EXISTS', KEYS[count + 1]) end
return answer
