-- Ends a member or expels it. ARGV: daemon, ended or vanished, the counter seen (only to expel). Answers 1 when done.
local role, ordinal, counter, joined, standing =
  string.match(call('HGET', at('roster'), ARGV[4]) or '', '^(%a+) (%d+) (%d+) (%d+) (%a+)$')
if not role then return 0 end
if ARGV[5] == 'vanished' and (counter ~= ARGV[6] or standing == 'ended') then return 0 end
call('HSET', at('roster'), ARGV[4], role .. ' ' .. ordinal .. ' ' .. counter .. ' ' .. joined .. ' ' .. ARGV[5])
touch('roster')
return 1
