-- ARGV: daemon, how it was left; by claim: topic, token, with how many devices it is settled, or 0.
local daemon, how = ARGV[4], ARGV[5]
for i = 6, #ARGV, 3 do
  local topic, token = ARGV[i], ARGV[i + 1]
  local ready, used = held(daemon, topic, token)
  if ready then
    call('HDEL', at('held:' .. daemon), topic)
    leave(topic, used, how)
    -- Devices that its holder does not know of have registered since: it is for the next one.
    local devices, settled = string.len(call('HGET', at('topics'), topic) or '') / 16, tonumber(ARGV[i + 2])
    call('SADD', at(settled > 0 and settled == devices and 'closed' or 'free'), topic)
  end
end
touch('left', 'free', 'closed')
if call('EXISTS', at('free')) == 1 then announce('free') end
