-- ARGV: daemon; by claim: topic, token. Answers the topics whose claim does not hold.
local daemon, lost = ARGV[4], {}
local mine = at('held:' .. daemon)
for i = 5, #ARGV, 2 do
  local topic, token = ARGV[i], ARGV[i + 1]
  local since = held(daemon, topic, token)
  if not since then
    table.insert(lost, topic)
  elseif since == '0' then
    call('HSET', mine, topic, token .. ' ' .. text(now()) .. ' 1')
  end
end
announce('ready')
return lost
