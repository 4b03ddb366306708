-- ARGV: daemon; by device: epoch, response topic, registration, row.
local daemon = ARGV[4]
local speaks = 'speaks:' .. daemon
enter(daemon)
for i = 5, #ARGV, 4 do
  local epoch, topic = ARGV[i], ARGV[i + 1]
  if call('HSETNX', at('devices'), epoch, ARGV[i + 2]) == 1 then
    call('HSET', at('rows'), epoch, ARGV[i + 3])
    if string.sub(ARGV[i + 3], 1, 1) == '-' then call('SADD', at(speaks), epoch) end
    local epochs = call('HGET', at('topics'), topic)
    if not epochs then
      call('HSET', at('left'), topic, 'never ' .. text(now()))
      call('SADD', at('free'), topic)
    elseif call('SREM', at('closed'), topic) == 1 then
      call('SADD', at('free'), topic)
    end
    call('HSET', at('topics'), topic, (epochs or '') .. epoch)
  end
end
touch('devices', 'rows', speaks, 'topics', 'left', 'free')
if call('EXISTS', at('free')) == 1 then announce('free') end
