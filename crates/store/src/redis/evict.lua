-- ARGV: daemon, the counter seen. Answers 1 when it was taken over from.
local dead, counter = ARGV[4], ARGV[5]
if call('HGET', at('leases'), dead) ~= counter then return 0 end
call('HDEL', at('leases'), dead)
for _, topic in ipairs(call('HKEYS', at('held:' .. dead))) do
  -- Even one that was not ready yet may have received: what its subscription got is not recorded.
  leave(topic, '1', 'died')
  call('SADD', at('free'), topic)
end
for _, epoch in ipairs(call('SMEMBERS', at('speaks:' .. dead))) do
  call('HSET', at('rows'), epoch, 'V' .. string.sub(call('HGET', at('rows'), epoch) or '-{}', 2))
end
call('DEL', at('held:' .. dead), at('speaks:' .. dead))
if string.match(call('GET', at('plotter')) or '', '^%x+') == dead then call('DEL', at('plotter')) end
touch('left', 'free', 'rows')
if call('EXISTS', at('free')) == 1 then announce('free') end
return 1
