-- ARGV: daemon. Answers nothing without a row, else the claims held: topic, "token ready used" by turns.
local daemon = ARGV[4]
local counter = call('HGET', at('leases'), daemon)
if not counter then return nil end
call('HSET', at('leases'), daemon, text(following(tonumber(counter))))
touch('newest', 'leases', 'devices', 'rows', 'speaks:' .. daemon, 'topics', 'free', 'closed', 'held:' .. daemon, 'left',
  'counts', 'states', 'shed', 'batches', 'latency', 'limit', 'plotter', 'cuts', 'cumulative', 'cursors')
return call('HGETALL', at('held:' .. daemon))
