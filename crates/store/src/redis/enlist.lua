-- ARGV: daemon, role, the ordinal wished for or nothing. Answers the ordinal, or the run's state when it refuses.
local daemon, role, wish = ARGV[4], ARGV[5], ARGV[6]
local state = call('HGET', at('run'), 'state')
if not state then return nil end
local pattern = '^(%a+) (%d+) (%d+) (%d+) (%a+)$'
local _, mine, counter, _, standing = string.match(call('HGET', at('roster'), daemon) or '', pattern)
if standing == 'standing' then return mine end
if role == 'producer' and state ~= 'open' then return state end
local taken, latest = {}, tonumber(counter or 0)
for _, row in ipairs(call('HVALS', at('roster'))) do
  local its, ordinal, _, joined, stands = string.match(row, pattern)
  latest = math.max(latest, tonumber(joined))
  if its == role and stands == 'standing' then taken[ordinal] = true end
end
local ordinal = wish
if wish == '' or taken[wish] then
  local lowest = 0
  while taken[text(lowest)] do lowest = lowest + 1 end
  ordinal = text(lowest)
end
-- Later than whoever joined before, also when the clock was set back.
counter = text(following(latest))
call('HSET', at('roster'), daemon, role .. ' ' .. ordinal .. ' ' .. counter .. ' ' .. counter .. ' standing')
touch('run', 'roster')
return ordinal
