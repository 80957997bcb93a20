-- Decide what many requests ask, one after the other: of each, every binding bucket is charged, or none.
--
-- KEYS      the buckets and the revoked tokens of all requests, each once; then the sets of requests under way
-- ARGV[1]   JSON: [now, strings, usual, request, request, ...]
--             now       microseconds since the Unix epoch by the caller's clock; 0 asks this server's
--             strings   how many of the keys are buckets and what may be revoked
--             usual     1 where no key is a set and no request settles, else 0
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
-- Answers   "now,admitted,revoked,state,state,...,admitted,revoked,state,...", each request in its turn; a settled one
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
  now = time[1] * 1000000 + time[2]
end
local format, find, ceil = string.format, string.find, math.ceil
local values = strings > 0 and redis.call('MGET', unpack(KEYS, 1, strings)) or {}
local states, texts, changed, sets = {}, {}, {}, {}

-- A key of another type, or a text that is no state, was left by someone else: it reads as a full bucket, and the next
-- charge writes over it.
local function read(key)
  local text = values[key] or '0'
  if #text > 16 or not find(text, '^[1-9]%d*$') then text = '0' end
  states[key], texts[key] = tonumber(text), text
  return states[key]
end

-- To make a function takes as long as to decide a charge, so what few calls need is made for those.
local others, settle
if batch[3] == 0 then
  -- How many are under way, this one aside; who did not renew in time no longer is.
  function others(key, lease)
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

  function settle(request)
    for at = 4, #request, 4 do
      local key, cost, room = request[at], request[at + 1], request[at + 2]
      if key > strings then
        others(key, request[3])
        sets[key] = sets[key] - redis.call('ZREM', KEYS[key], request[3])
      else
        local state, furthest = states[key] or read(key), now + room
        local after = math.min(math.max(state, now), furthest) + cost
        after = math.max(now, math.min(after, furthest))
        if after ~= state then states[key], texts[key], changed[key] = after, format('%.0f', after), true end
      end
    end
  end
end

-- What is kept of a token. A text that is no instant was left by someone else: rather than none, all are revoked.
local function revoked(names)
  for index = 2, #names do
    if values[names[index]] then return '1' end
  end
  local instant = values[names[1]]
  if not instant then return '0' end
  return #instant <= 16 and find(instant, '^[1-9]%d*$') and instant or '1'
end

local answer, words = { format('%.0f', now) }, 1
local fits, after = {}, {} -- of the charges of the request in hand
for index = 4, #batch do
  local request = batch[index]
  if request[1] == 1 then
    settle(request)
  else
    local head, last, admitted = words + 1, #request, true
    words = words + 2
    answer[words] = request[2] == 0 and '0' or revoked(request[2])
    for at = 4, last, 4 do
      local key, cost, room = request[at], request[at + 1], request[at + 2]
      words = words + 1
      if key > strings then
        local count = others(key, request[3])
        fits[at], answer[words] = count < room, format('%.0f', count)
      else
        local state, furthest = states[key] or read(key), now + room
        -- Not in the past, and at most one capacity ahead: that heals a clock that was ahead, and a limit that was
        -- lowered.
        local counted = state < now and now or state > furthest and furthest or state
        after[at], fits[at], answer[words] = counted + cost, counted + cost <= furthest, texts[key]
      end
      if not fits[at] and request[at + 3] == 1 then admitted = false end
    end
    answer[head] = admitted and '1' or '0'
    for at = 4, last, 4 do
      local key, cost = request[at], request[at + 1]
      local charged = admitted and fits[at]
      if key <= strings then
        -- A refusal charges nothing. It writes down what it healed only, since else the bucket would stay empty for as
        -- long as the clock was ahead.
        local before, state = states[key], charged and after[at] or after[at] - cost
        if state < before or (charged and state > now and state ~= before) then
          states[key], texts[key], changed[key] = state, format('%.0f', state), true
        end
      elseif charged then
        sets[key] = sets[key] + redis.call('ZADD', KEYS[key], now + cost, request[3])
        redis.call('PEXPIRE', KEYS[key], ceil(cost / 1000))
      end
    end
  end
end

for key in pairs(changed) do
  local left = ceil((states[key] - now) / 1000)
  redis.call('PSETEX', KEYS[key], left < 1 and 1 or left, texts[key])
end
return table.concat(answer, ',')
