-- Opens the run unless it is there. ARGV: schema, partitions, claim unit. The run's keys:
--   run      schema, partitions, claim_unit, state, opened_us, closed_us, keep_ms, restored
--   notes    see note.lua
--   roster   daemon -> "role ordinal counter joined standing|ended|vanished"
if call('EXISTS', at('run')) == 0 then
  call('HSET', at('run'), 'schema', ARGV[4], 'partitions', ARGV[5], 'claim_unit', ARGV[6], 'state', 'open',
    'opened_us', text(now()), 'keep_ms', ARGV[1])
  touch('run')
  announce('run')
end
return call('HGETALL', at('run'))
