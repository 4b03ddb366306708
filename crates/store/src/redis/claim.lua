-- ARGV: daemon, room (0: what is claimed and not ready, again), 1 when a partition has one holder. Answers by claim:
-- topic, token, left, state, counts, registrations and rows by turns; nothing where another holds the partition.
local daemon, room = ARGV[4], tonumber(ARGV[5])
local mine = 'held:' .. daemon
local taken = {}
if ARGV[6] == '1' then
  for _, other in ipairs(call('HKEYS', at('leases'))) do
    if other ~= daemon and call('EXISTS', at('held:' .. other)) == 1 then return taken end
  end
end
if room == 0 then
  local known = call('HGETALL', at(mine))
  for i = 1, #known, 2 do
    local token, ready = string.match(known[i + 1], '^(%d+) (%d+)')
    if ready == '0' then table.insert(taken, {known[i], token}) end
  end
else
  for _, topic in ipairs(call('SPOP', at('free'), room)) do
    local token = next_token()
    call('HSET', at(mine), topic, token .. ' 0 0')
    table.insert(taken, {topic, token})
  end
end
if #taken > 0 then enter(daemon) end
for _, claim in ipairs(taken) do
  local topic, devices = claim[1], {}
  claim[3] = call('HGET', at('left'), topic)
  claim[4] = call('HGET', at('states'), topic)
  claim[5] = call('HGET', at('counts'), topic)
  for epoch in string.gmatch(call('HGET', at('topics'), topic) or '', string.rep('%x', 16)) do
    table.insert(devices, call('HGET', at('devices'), epoch))
    table.insert(devices, call('HGET', at('rows'), epoch))
  end
  claim[6] = devices
end
touch(mine)
return taken
