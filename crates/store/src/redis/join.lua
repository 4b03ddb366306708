-- ARGV: daemon, token; by sink that has no cursor yet: sink, cursor. Answers 0 when the hold is lost.
if call('GET', at('plotter')) ~= ARGV[4] .. ' ' .. ARGV[5] then return 0 end
for i = 6, #ARGV, 2 do call('HSETNX', at('cursors'), ARGV[i], ARGV[i + 1]) end
touch('cursors')
return 1
