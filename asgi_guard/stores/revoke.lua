-- Put a token, a session or a subject among the revoked. What is kept of it counts on: of both, the later end and the
-- later instant hold.
--
-- KEYS[1]   what is revoked
-- ARGV[1]   milliseconds for which that is kept
-- ARGV[2]   of a subject, up to when its tokens are revoked, in microseconds since the Unix epoch; 1 revokes all
local key, lasts, instant = KEYS[1], tonumber(ARGV[1]), ARGV[2]
local known = redis.call('MGET', key)[1]
-- As for requests, a key of another type was left by someone else: it is written over. A text that is no instant was,
-- too: it revokes all.
if known then
  if #known > 16 or not string.find(known, '^[1-9]%d*$') then known = '1' end
  if known == '1' or (instant ~= '1' and tonumber(known) > tonumber(instant)) then instant = known end
  local left = redis.call('PTTL', key)
  if left < 0 then left = 316224000000 end -- someone else had it kept for good; ten years are as long as we keep any
  if left > lasts then lasts = left end
end
redis.call('PSETEX', key, lasts, instant)
