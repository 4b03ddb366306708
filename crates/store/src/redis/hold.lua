-- The plotter's keys: plotter "daemon token" or "finished"; cuts, a list of "number ms sequence second"; cumulative,
-- field -> bytes; cursors, sink -> "cut JSON".
-- ARGV: daemon; sinks, which get cursors where they have none. Answers nothing when another holds it or it is finished,
-- else token, cuts, cumulative, cursors.
local daemon = ARGV[4]
local plotter = call('GET', at('plotter')) or ''
if plotter == 'finished' then return nil end
local holder, token = string.match(plotter, '^(%x+) (%d+)$')
if holder and holder ~= daemon then return nil end
token = token or next_token()
call('SET', at('plotter'), daemon .. ' ' .. token, 'PX', ARGV[1])
enter(daemon)

-- A sink that joins others starts where the slowest of them stands, since what lies before may be deleted, and counts that as
-- dropped: see cursor.rs.
local cursors, slowest = call('HGETALL', at('cursors')), nil
for i = 2, #cursors, 2 do
  local cut = string.match(cursors[i], '^%d+')
  if not slowest or tonumber(cut) < tonumber(slowest.cut) then slowest = {cut = cut, text = cursors[i]} end
end
local fresh = '0 {"cut":0,"topics":{}}'
if slowest then
  local missed = {}
  for topic, counts in pairs(cjson.decode(string.match(slowest.text, '^%d+ (.*)$')).topics) do
    local sum = 0
    for _, samples in pairs(counts) do sum = sum + samples end
    missed[topic] = {sink_dropped = sum}
  end
  fresh = slowest.cut .. ' ' .. cjson.encode({cut = tonumber(slowest.cut), topics = missed})
end
for i = 5, #ARGV do call('HSETNX', at('cursors'), ARGV[i], fresh) end
touch('cursors')
return {token, call('LRANGE', at('cuts'), 0, -1), call('HGETALL', at('cumulative')), call('HGETALL', at('cursors'))}
