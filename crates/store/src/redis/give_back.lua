-- ARGV: daemon, how it was left; by claim: topic, token, 1 when it closes.
local daemon, how = ARGV[4], ARGV[5]
for i = 6, #ARGV, 3 do
  local topic, token = ARGV[i], ARGV[i + 1]
  local ready, used = held(daemon, topic, token)
  if ready then
    call('HDEL', at('held:' .. daemon), topic)
    leave(topic, used, how)
    call('SADD', at(ARGV[i + 2] == '1' and 'closed' or 'free'), topic)
  end
end
touch('left', 'free', 'closed')
if call('EXISTS', at('free')) == 1 then announce('free') end
