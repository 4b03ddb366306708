-- ARGV: epoch, its rebuilt row.
local row = call('HGET', at('rows'), ARGV[4])
if row and string.sub(row, 1, 1) ~= 'E' then
  call('HSET', at('rows'), ARGV[4], ARGV[5])
  touch('rows')
end
