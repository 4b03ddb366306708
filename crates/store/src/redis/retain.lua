-- ARGV: bytes.
call('SET', at('limit'), ARGV[4], 'PX', ARGV[1])
