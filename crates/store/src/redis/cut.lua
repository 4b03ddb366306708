-- ARGV: daemon, token, cut; by changed field: field, value. Answers 0 when the hold or the number does not fit.
if call('GET', at('plotter')) ~= ARGV[4] .. ' ' .. ARGV[5] then return 0 end
local cut, newest = ARGV[6], call('LINDEX', at('cuts'), -1) or '0'
if cut == newest then return 1 end
local function number(of) return tonumber(string.match(of, '^%d+')) end
if number(cut) ~= number(newest) + 1 then return 0 end
call('RPUSH', at('cuts'), cut)
for i = 7, #ARGV, 2 do call('HSET', at('cumulative'), ARGV[i], ARGV[i + 1]) end
touch('cuts', 'cumulative')
return 1
