-- ARGV: the state to move on to. Answers 1 when the run stands there or past it.
local rank = {open = 0, draining = 1, closed = 2}
local state = call('HGET', at('run'), 'state')
if not state then return nil end
if rank[state] >= rank[ARGV[4]] then return 1 end
if state == 'open' then
  local begun, stands = false, false
  for _, row in ipairs(call('HVALS', at('roster'))) do
    local is_producer, is_standing = string.match(row, '^producer '), string.match(row, ' standing$')
    if is_producer and is_standing then return 0 end
    begun = begun or is_producer
    stands = stands or is_standing
  end
  if stands and not begun then return 0 end
end
call('HSET', at('run'), 'state', ARGV[4])
if ARGV[4] == 'closed' then call('HSET', at('run'), 'closed_us', text(now())) end
touch('run')
announce('run')
return 1
