-- Decide what many requests ask, one after the other: of each, every binding bucket is charged, or none.
--
-- KEYS      the buckets and the revoked tokens of all requests, each once; then the sets of requests under way
-- ARGV[1]   JSON: [now, strings, request, request, ...]
--             now       microseconds since the Unix epoch by the caller's clock; 0 asks this server's
--             strings   how many of the keys are buckets and what may be revoked
--             request   [settles, token, lease, charge, charge, ...], each charge four numbers in a row:
--               settles   1 where this is the account of a request that was admitted before
--               token     0 asks nothing; else a list: which of the keys is the name of the token's subject among the
--                         revoked, or 0, then those of the token itself and of its session
--               lease     the request's own name among those under way
--               charge    key    which of the keys; beyond `strings`, a set
--                         cost   microseconds (units * interval); of a set, how long the request counts
--                         room   microseconds (burst * interval); of a set, how many there may be
--                         binding  1, or 0 for a limit in shadow
--
-- Answers   "now admitted revoked state state ... admitted revoked state ...", each request in its turn; a settled one
--           has no words. `revoked` is 1 if the token or its session is named, else the instant up to which its
--           subject's tokens are revoked, else 0. The states are those before the decision.
--
-- A state is the instant, in microseconds, at which the bucket is full again; no key means full. Of a set it is how many
-- others are under way. Numbers stay below 2^53, so they are exact; '%.0f' writes them out, since tostring would keep
-- 14 digits only.
local batch = cjson.decode(ARGV[1])
local now, strings = batch[1], batch[2]
if now == 0 then
  local time = redis.call('TIME')
  now = tonumber(time[1]) * 1000000 + tonumber(time[2])
end
local format, find, max, min = string.format, string.find, math.max, math.min

-- A key of another type, or a text that is no state, was left by someone else: it reads as a full bucket, and the next
-- charge writes over it.
local values = strings > 0 and redis.call('MGET', unpack(KEYS, 1, strings)) or {}
local states, texts, changed, sets = {}, {}, {}, {}

local function state_of(key)
  local state = states[key]
  if not state then
    local text = values[key] or '0'
    if #text > 16 or not find(text, '^%d+$') then text = '0' end
    state = tonumber(text)
    states[key], texts[key] = state, text
  end
  return state
end

local function put(key, state)
  states[key], texts[key], changed[key] = state, format('%.0f', state), true
end

-- How many are under way, this one aside; who did not renew in time no longer is.
local function others(key, lease)
  if not sets[key] then
    local gone = redis.pcall('ZREMRANGEBYSCORE', KEYS[key], '-inf', now)
    if type(gone) == 'table' and gone.err then
      if not find(gone.err, 'WRONGTYPE', 1, true) then error(gone) end
      redis.call('DEL', KEYS[key])
    end
    sets[key] = redis.call('ZCARD', KEYS[key])
  end
  return redis.call('ZSCORE', KEYS[key], lease) and sets[key] - 1 or sets[key]
end

local function settle(request)
  for at = 4, #request, 4 do
    local key, cost, room = request[at], request[at + 1], request[at + 2]
    if key > strings then
      others(key, request[3])
      sets[key] = sets[key] - redis.call('ZREM', KEYS[key], request[3])
    else
      local furthest = now + room
      local state = max(now, min(min(max(state_of(key), now), furthest) + cost, furthest))
      if state ~= states[key] then put(key, state) end
    end
  end
end

-- What is kept of a token. A text that is no instant was left by someone else: rather than none, all are revoked.
local function revoked(names)
  if names == 0 then return '0' end
  for index = 2, #names do
    if values[names[index]] then return '1' end
  end
  local instant = values[names[1]]
  if not instant then return '0' end
  return #instant <= 16 and find(instant, '^%d+$') and instant or '1'
end

local answer = { format('%.0f', now) }
local function admit(request)
  local lease, admitted, fits, after = request[3], true, {}, {}
  local head = #answer + 1
  answer[head] = '1'
  answer[head + 1] = revoked(request[2])
  for at = 4, #request, 4 do
    local key, cost, room = request[at], request[at + 1], request[at + 2]
    if key > strings then
      local count = others(key, lease)
      fits[at] = count < room
      answer[#answer + 1] = format('%.0f', count)
    else
      local state, furthest = state_of(key), now + room
      -- Not in the past, and at most one capacity ahead: that heals a clock that was ahead, and a limit that was lowered.
      after[at] = min(max(state, now), furthest) + cost
      fits[at] = after[at] <= furthest
      answer[#answer + 1] = texts[key]
    end
    if not fits[at] and request[at + 3] == 1 then admitted = false end
  end
  if not admitted then answer[head] = '0' end
  for at = 4, #request, 4 do
    local key, cost = request[at], request[at + 1]
    local charged = admitted and fits[at]
    if key <= strings then
      -- A refusal charges nothing. It writes down what it healed only, since else the bucket would stay empty for as
      -- long as the clock was ahead.
      local state = after[at] - (charged and 0 or cost)
      if state < states[key] or (charged and state > now and state ~= states[key]) then put(key, state) end
    elseif charged then
      sets[key] = sets[key] + redis.call('ZADD', KEYS[key], now + cost, lease)
      redis.call('PEXPIRE', KEYS[key], math.ceil(cost / 1000))
    end
  end
end

for index = 3, #batch do
  if batch[index][1] == 1 then settle(batch[index]) else admit(batch[index]) end
end
for key in pairs(changed) do
  local left = max(1, math.ceil((states[key] - now) / 1000))
  redis.call('PSETEX', KEYS[key], left, texts[key])
end
return table.concat(answer, ' ')
