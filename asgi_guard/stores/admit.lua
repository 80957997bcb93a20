-- Decide all that one request asks: every bucket is charged, or none, and one token is looked up among the revoked.
--
-- KEYS      the buckets, then the token's name among the revoked if there is one
-- ARGV[1]   the number of buckets
-- ARGV[2i]  of bucket i: the cost, in microseconds (units * interval)
-- ARGV[2i+1]             the capacity, in microseconds (burst * interval)
--
-- Answers   { admitted 0|1, revoked 0|1, now, state of bucket 1 before, state of bucket 2 before, ... }
--
-- A state is the instant, in microseconds of this server's clock, at which the bucket is full again; no key means full.
-- Numbers stay below 2^53, so they are exact; '%.0f' writes them out, since tostring would keep 14 digits only.
local count = tonumber(ARGV[1])
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000000 + tonumber(time[2])
local answer = { 1, 0, now }
local after, healed = {}, {}
for i = 1, count do
  local cost, capacity = tonumber(ARGV[2 * i]), tonumber(ARGV[2 * i + 1])
  local value = redis.pcall('GET', KEYS[i])
  -- A key of another type, or a text that is no state, was left by someone else: it reads as a full bucket, and the next
  -- charge writes over it. Any other error (no permission, no such cluster slot) is one.
  if type(value) == 'table' and value.err and not string.find(value.err, 'WRONGTYPE', 1, true) then return value end
  local state = type(value) == 'string' and #value <= 16 and string.find(value, '^%d+$') and tonumber(value) or 0
  answer[3 + i] = state
  -- Not in the past, and at most one capacity ahead: that heals a clock that was ahead, and a limit that was lowered.
  local furthest = now + capacity
  healed[i] = state > furthest and furthest or 0
  after[i] = math.min(math.max(state, now), furthest) + cost
  if after[i] > furthest then answer[1] = 0 end
end
-- A refusal charges nothing. It writes down what it healed only, since else the bucket would stay empty for as long as
-- the clock was ahead.
local written = answer[1] == 1 and after or healed
for i = 1, count do
  if written[i] > now and written[i] ~= answer[3 + i] then
    redis.call('SET', KEYS[i], string.format('%.0f', written[i]), 'PX', math.ceil((written[i] - now) / 1000))
  end
end
if KEYS[count + 1] then answer[2] = redis.call('EXISTS', KEYS[count + 1]) end
return answer
