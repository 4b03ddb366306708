-- The plotter's keys: plotter "daemon token" or "finished"; cuts, a list of "number ms sequence second"; cumulative,
-- field -> bytes; cursors, sink -> "cut JSON".
-- ARGV: daemon. Answers nothing when another holds it or it is finished, else token, cuts, cumulative, cursors.
local daemon = ARGV[4]
local plotter = call('GET', at('plotter')) or ''
if plotter == 'finished' then return nil end
local holder, token = string.match(plotter, '^(%x+) (%d+)$')
if holder and holder ~= daemon then return nil end
token = token or next_token()
call('SET', at('plotter'), daemon .. ' ' .. token, 'PX', ARGV[1])
enter(daemon)
return {token, call('LRANGE', at('cuts'), 0, -1), call('HGETALL', at('cumulative')), call('HGETALL', at('cursors'))}
