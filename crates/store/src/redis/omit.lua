-- How many notes a daemon could not keep until the store had them, in all its life. ARGV: daemon, count.
if call('EXISTS', at('run')) == 0 then return nil end
local field = 'omitted ' .. ARGV[4]
if tonumber(call('HGET', at('notes'), field) or 0) < tonumber(ARGV[5]) then
  call('HSET', at('notes'), field, ARGV[5])
end
touch('notes')
return 1
