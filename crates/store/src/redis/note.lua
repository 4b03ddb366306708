-- Keeps what a daemon saw: notes, key -> JSON, and omitted -> how many were only counted here (omitted <daemon>: by it). ARGV: key, JSON, the most kept.
if call('EXISTS', at('run')) == 0 then return nil end
if call('HEXISTS', at('notes'), ARGV[4]) == 1 then return 1 end
if call('HLEN', at('notes')) >= tonumber(ARGV[6]) then
  call('HINCRBY', at('notes'), 'omitted', 1)
else
  call('HSET', at('notes'), ARGV[4], ARGV[5])
end
touch('notes')
return 1
