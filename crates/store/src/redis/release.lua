-- ARGV: daemon.
release(ARGV[4])
