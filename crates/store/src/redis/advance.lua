-- ARGV: daemon, token, sink, "cut JSON", the cut it was known to stand at; ids of entries to delete. Answers false when the
-- hold is lost, the stored cursor when that stands beyond the known cut (and does nothing), else an empty text.
if call('GET', at('plotter')) ~= ARGV[4] .. ' ' .. ARGV[5] then return false end
local function number(of) return tonumber(string.match(of, '^%d+')) end
local sink, cursor = ARGV[6], ARGV[7]
local stored = call('HGET', at('cursors'), sink) or '0'
if number(stored) > tonumber(ARGV[8]) then return stored end
call('HSET', at('cursors'), sink, cursor)
-- The last cut that all have passed stays: it says which entries the slowest cursor has passed.
local passed
for _, value in ipairs(call('HVALS', at('cursors'))) do passed = math.min(passed or number(value), number(value)) end
while call('LLEN', at('cuts')) > 1 and number(call('LINDEX', at('cuts'), 0)) < passed do call('LPOP', at('cuts')) end
for i = 9, #ARGV do call('XDEL', at('latency'), ARGV[i]) end
touch('cursors')
return ''
