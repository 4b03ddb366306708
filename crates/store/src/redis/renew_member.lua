-- ARGV: daemon. Answers 1 when its row stood and was renewed.
local role, ordinal, counter, joined, standing =
  string.match(call('HGET', at('roster'), ARGV[4]) or '', '^(%a+) (%d+) (%d+) (%d+) (%a+)$')
if standing ~= 'standing' then return 0 end
counter = text(following(tonumber(counter)))
call('HSET', at('roster'), ARGV[4], role .. ' ' .. ordinal .. ' ' .. counter .. ' ' .. joined .. ' standing')
touch('run', 'roster', 'notes')
return 1
