-- Adds a run under a new name, unless one was added meanwhile. ARGV: the newest name seen, the name wished for.
-- Answers the name, or nothing.
local newest = call('ZREVRANGE', at('index'), 0, 0)[1] or ''
if newest ~= ARGV[4] then return nil end
local name, attempt = ARGV[5], 1
while call('ZSCORE', at('index'), name) do
  attempt = attempt + 1
  name = ARGV[5] .. '-' .. attempt
end
call('ZADD', at('index'), text(now()), name)
return name
