-- Decide what many requests ask, one after the other: of each, every binding bucket is charged, or none.
--
-- KEYS      of each request in turn: what is looked up of its token among the revoked, then its buckets; behind those
--           of all requests, of each in turn, its sets of requests under way. A key may be there several times.
-- ARGV[1]   JSON: [now, strings, usual, [shape, shape, ...], [which, which, ...]]
--             now       microseconds since the Unix epoch by the caller's clock; 0 asks this server's
--             strings   how many of the keys are not sets
--             usual     1 where no key is a set and no request settles, else 0
--             shape     what requests are told by, beside their keys: [settles, subject, named, charge, charge, ...],
--                       each charge four numbers in a row:
--               settles   1 where this is the account of a request that was admitted before
--               subject   1 where the first key is the name of the token's subject among the revoked
--               named     how many keys follow that are those of the token itself and of its session
--               charge    cost   microseconds (units * interval); of a set, how long the request counts
--                         room   microseconds (burst * interval); of a set, how many there may be
--                         binding  1, or 0 for a limit in shadow
--                         set      1 where its key is a set, else 0
--             which     of each request, its shape
-- ARGV[2]   and so on: of each request that has sets, in turn, its own name among those under way
--
-- Answers   "now,admitted,revoked,state,state,...,admitted,revoked,state,...", each request in its turn; a settled one
--           has no words. `revoked` is 1 if the token or its session is named, else the instant up to which its
--           subject's tokens are revoked, else 0. The states are those before the decision.
--           Where the server lets nothing be written (it is full, or a replica), these in a pair with its error: nobody
--           is charged or settled then, and of the words those on the revoked alone hold.
--
-- A state is the instant, in microseconds, at which the bucket is full again; no key means full. Of a set it is how many
-- others are under way. Numbers stay below 2^53, so they are exact; '%.0f' writes them out, since tostring would keep
-- 14 digits only.
local now, strings, usual, shapes, asked = unpack(cjson.decode(ARGV[1]))
if now == 0 then
  local time = redis.call('TIME')
  now = time[1] * 1000000 + time[2]
end
local format, find, ceil = string.format, string.find, math.ceil
local values = strings > 0 and redis.call('MGET', unpack(KEYS, 1, strings)) or {}
local states, texts, changed = {}, {}, {} -- by key
local sets, under_way, begun, over, foreign, lives -- by key, and some by lease within
local string_at, set_at, lease_at = 0, strings, 1 -- the last that was looked at

-- A key of another type, or a text that is no state, was left by someone else: it reads as a full bucket, and the next
-- charge writes over it.
local function read(key, text)
  if not text or #text > 16 or not find(text, '^[1-9]%d*$') then text = '0' end
  states[key], texts[key] = tonumber(text), text
  return states[key]
end

-- To make a function takes as long as to decide a charge, so what few calls need is made for those.
local others, settle
if usual == 0 then
  sets, under_way, begun, over, foreign, lives = {}, {}, {}, {}, {}, {}

  -- How many are under way, this one aside. Who did not renew in time no longer is, nor who is of a clock that was ahead.
  -- Callers' own clocks are never quite the same, and what they send overtakes, so a lease may end later than any of now.
  function others(key, lease, cost)
    local own = under_way[key]
    if not own then
      local count = redis.pcall('ZCOUNT', key, now + 1, now + 2 * cost)
      if type(count) == 'table' then
        if not find(count.err, 'WRONGTYPE', 1, true) then error(count) end
        foreign[key], count = true, 0
      end
      own = {}
      under_way[key], sets[key], lives[key] = own, count, cost
    end
    if own[lease] == nil then
      local ends = tonumber(not foreign[key] and redis.call('ZSCORE', key, lease) or 0)
      own[lease] = ends > now and ends <= now + 2 * cost
    end
    return own[lease] and sets[key] - 1 or sets[key]
  end

  function settle(shape, lease)
    for at = 4, #shape, 4 do
      local cost, room = shape[at], shape[at + 1]
      if shape[at + 3] == 1 then
        set_at = set_at + 1
        local key = KEYS[set_at]
        sets[key] = others(key, lease, cost)
        under_way[key][lease] = false
        over[key] = over[key] or {}
        over[key][lease] = true
      else
        string_at = string_at + 1
        local key = KEYS[string_at]
        local state, furthest = states[key] or read(key, values[string_at]), now + room
        local after = math.min(math.max(state, now), furthest) + cost
        after = math.max(now, math.min(after, furthest))
        if after ~= state then states[key], texts[key], changed[key] = after, format('%.0f', after), true end
      end
    end
  end
end

-- What is kept of a token. A text that is no instant was left by someone else: rather than none, all are revoked.
local function revoked(subject, named)
  local from = string_at + subject
  string_at = from + named
  for at = from + 1, string_at do
    if values[at] then return '1' end
  end
  local instant = subject == 1 and values[from]
  if not instant then return '0' end
  return #instant <= 16 and find(instant, '^[1-9]%d*$') and instant or '1'
end

local answer, words = { format('%.0f', now) }, 1
local keys, fits, after = {}, {}, {} -- of the charges of the request in hand
for index = 1, #asked do
  local shape = shapes[asked[index]]
  local last, lease = #shape
  if usual == 0 then
    for at = 7, last, 4 do
      if shape[at] == 1 then lease = ARGV[lease_at + 1] end
    end
    if lease then lease_at = lease_at + 1 end
  end
  if shape[1] == 1 then
    settle(shape, lease)
  else
    local head, admitted = words + 1, true
    words = words + 2
    answer[words] = shape[2] + shape[3] == 0 and '0' or revoked(shape[2], shape[3])
    for at = 4, last, 4 do
      local cost, room = shape[at], shape[at + 1]
      words = words + 1
      if shape[at + 3] == 1 then
        set_at = set_at + 1
        local key = KEYS[set_at]
        local count = others(key, lease, cost)
        keys[at], fits[at], answer[words] = key, count < room, format('%.0f', count)
      else
        string_at = string_at + 1
        local key = KEYS[string_at]
        local state, furthest = states[key] or read(key, values[string_at]), now + room
        -- Not in the past, and at most one capacity ahead: that heals a clock that was ahead.
        local counted = state < now and now or state > furthest and furthest or state
        keys[at], after[at], fits[at], answer[words] = key, counted + cost, counted + cost <= furthest, texts[key]
      end
      if not fits[at] and shape[at + 2] == 1 then admitted = false end
    end
    answer[head] = admitted and '1' or '0'
    for at = 4, last, 4 do
      local key, cost = keys[at], shape[at]
      local charged = admitted and fits[at]
      if shape[at + 3] == 0 then
        -- A refusal charges nothing. It writes down what it healed only, since else the bucket would stay empty for as
        -- long as the clock was ahead.
        local before, state = states[key], charged and after[at] or after[at] - cost
        if state < before or (charged and state > now and state ~= before) then
          states[key], texts[key], changed[key] = state, format('%.0f', state), true
        end
      elseif charged then
        if not under_way[key][lease] then
          sets[key] = sets[key] + 1
          under_way[key][lease] = true
        end
        begun[key] = begun[key] or {}
        begun[key][lease] = true
      end
    end
  end
end

-- What needs memory is written first: a server that is full refuses that, but no longer once the script has written or
-- removed anything. So it is the first that is refused, if any, and what was looked up is told all the same.
local write = redis.pcall
for key in pairs(changed) do
  local left = ceil((states[key] - now) / 1000)
  local reply = write('PSETEX', key, left < 1 and 1 or left, texts[key])
  if reply.err then return { table.concat(answer, ','), reply.err } end
  write = redis.call
end
if usual == 0 then
  local refusal
  local function refuses(...)
    local reply = write(...)
    write, refusal = redis.call, type(reply) == 'table' and reply.err
    return refusal
  end

  for key, leases in pairs(begun) do
    if foreign[key] and refuses('DEL', key) then return { table.concat(answer, ','), refusal } end
    for lease in pairs(leases) do
      if refuses('ZADD', key, now + lives[key], lease) then return { table.concat(answer, ','), refusal } end
    end
  end
  for key in pairs(begun) do
    redis.call('ZREMRANGEBYSCORE', key, '-inf', now)
    redis.call('ZREMRANGEBYSCORE', key, now + 2 * lives[key] + 1, '+inf')
    redis.call('PEXPIRE', key, ceil(lives[key] / 1000))
  end
  for key, leases in pairs(over) do
    for lease in pairs(leases) do
      if not under_way[key][lease] and (begun[key] or not foreign[key]) and refuses('ZREM', key, lease) then
        return { table.concat(answer, ','), refusal }
      end
    end
  end
end
return table.concat(answer, ',')
