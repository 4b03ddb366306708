-- What scripts of a partition share. Its keys:
--   newest            the newest token or counter given out
--   leases            daemon -> counter
--   devices, rows     epoch -> JSON; epoch -> E (ended), V (vanished) or - and JSON
--   speaks:<daemon>   epochs it registered and has not ended
--   topics            response topic -> epochs, 16 digits each
--   free, closed      response topics
--   held:<daemon>     response topic -> "token, ready since (us, or 0), used (0 or 1)"
--   left, counts      response topic -> "how since"; "stored dropped"
--   states            response topic -> the consumer's state
--   shed              epoch -> messages sent in entries that there was no room for
--   batches           side and daemon -> JSON array: number of the last flush, its answer
--   latency           the stream of entries;   limit   the bytes it may take
--   plotter, cuts, cumulative, cursors         see hold.lua
local function next_token()
  local token = text(following(tonumber(call('GET', at('newest')) or 0)))
  call('SET', at('newest'), token, 'PX', ARGV[1])
  return token
end
-- Makes or renews the daemon's lease row, with whatever it takes.
local function enter(daemon)
  call('HSET', at('leases'), daemon, next_token())
  touch('leases')
end
-- Ready since and used, as text; nothing when the claim does not hold.
local function held(daemon, topic, token)
  local value = call('HGET', at('held:' .. daemon), topic)
  if not value then return nil end
  local holds, ready, used = string.match(value, '^(%d+) (%d+) (%d)$')
  if holds == token then return ready, used end
end
-- A claim neither ready nor flushed to stays as its last holder left it.
local function leave(topic, used, how)
  if used == '1' then call('HSET', at('left'), topic, how .. ' ' .. text(now())) end
end
local function counts(topic)
  local stored, dropped = string.match(call('HGET', at('counts'), topic) or '0 0', '^(%d+) (%d+)$')
  return tonumber(stored), tonumber(dropped)
end
local function release(daemon)
  local plotter = call('GET', at('plotter')) or ''
  if call('EXISTS', at('held:' .. daemon), at('speaks:' .. daemon)) == 0
    and string.match(plotter, '^%x+') ~= daemon then
    call('HDEL', at('leases'), daemon)
  end
end
