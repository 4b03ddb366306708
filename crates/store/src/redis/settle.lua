-- ARGV: topic, its final state. Answers 1 when the topic is closed.
local topic = ARGV[4]
if call('SREM', at('free'), topic) == 0 then return call('SISMEMBER', at('closed'), topic) end
call('SADD', at('closed'), topic)
call('HSET', at('states'), topic, ARGV[5])
local how = string.match(call('HGET', at('left'), topic) or 'never 0', '^%S+')
call('HSET', at('left'), topic, how .. ' ' .. text(now()))
touch('closed', 'states', 'left')
return 1
