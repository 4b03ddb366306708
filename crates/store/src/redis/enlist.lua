-- ARGV: daemon, role, the ordinal wished for or nothing. Answers the ordinal, or the run's state when it refuses.
local daemon, role, wish = ARGV[4], ARGV[5], ARGV[6]
local state = call('HGET', at('run'), 'state')
if not state then return nil end
local pattern = '^(%a+) (%d+) (%d+) %d+ (%a+)$'
local _, mine, counter, standing = string.match(call('HGET', at('roster'), daemon) or '', pattern)
if standing == 'standing' then return mine end
if role == 'producer' and state ~= 'open' then return state end
local taken = {}
for _, row in ipairs(call('HVALS', at('roster'))) do
  local its, ordinal, _, stands = string.match(row, pattern)
  if its == role and stands == 'standing' then taken[ordinal] = true end
end
local ordinal = wish
if wish == '' or taken[wish] then
  local lowest = 0
  while taken[text(lowest)] do lowest = lowest + 1 end
  ordinal = text(lowest)
end
counter = text(following(tonumber(counter or 0)))
call('HSET', at('roster'), daemon, role .. ' ' .. ordinal .. ' ' .. counter .. ' ' .. counter .. ' standing')
touch('run', 'roster')
return ordinal
