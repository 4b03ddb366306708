-- ARGV: daemon, token. Answers whether it is finished.
local plotter = call('GET', at('plotter'))
if plotter == 'finished' then return 1 end
if plotter ~= ARGV[4] .. ' ' .. ARGV[5] then return 0 end
call('SET', at('plotter'), 'finished', 'PX', ARGV[1])
release(ARGV[4])
return 1
