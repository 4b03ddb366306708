-- ARGV: daemon, token.
if call('GET', at('plotter')) == ARGV[4] .. ' ' .. ARGV[5] then
  call('DEL', at('plotter'))
  release(ARGV[4])
end
