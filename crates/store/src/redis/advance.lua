-- ARGV: daemon, token, sink, "cut JSON"; ids of entries to delete. Answers 0 when the hold is lost.
if call('GET', at('plotter')) ~= ARGV[4] .. ' ' .. ARGV[5] then return 0 end
local function number(of) return tonumber(string.match(of, '^%d+')) end
local sink, cursor = ARGV[6], ARGV[7]
if number(cursor) >= number(call('HGET', at('cursors'), sink) or '0') then
  call('HSET', at('cursors'), sink, cursor)
end
-- The last cut that all have passed stays: it says which entries the slowest cursor has passed.
local passed
for _, value in ipairs(call('HVALS', at('cursors'))) do passed = math.min(passed or number(value), number(value)) end
while call('LLEN', at('cuts')) > 1 and number(call('LINDEX', at('cuts'), 0)) < passed do call('LPOP', at('cuts')) end
for i = 8, #ARGV do call('XDEL', at('latency'), ARGV[i]) end
touch('cursors')
return 1
