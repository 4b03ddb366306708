-- ARGV: daemon, batch, bytes the stream may take, 1 when it is the last word; how many rows, by row: epoch, row;
-- entries as in append.lua. Answers nothing when the daemon's lease row is gone.
local daemon, batch, limit = ARGV[4], ARGV[5], ARGV[6]
local answer = repeated('S', daemon, batch)
if answer then return answer end
if ARGV[7] == '0' and call('HEXISTS', at('leases'), daemon) == 0 then return nil end
answer = {tonumber(batch), 0}

local i = 9
for _ = 1, tonumber(ARGV[8]) do
  local epoch, row = ARGV[i], ARGV[i + 1]
  local known = call('HGET', at('rows'), epoch)
  if known and string.sub(known, 1, 1) ~= 'E' then
    call('HSET', at('rows'), epoch, row)
    if string.sub(row, 1, 1) == 'E' then call('SREM', at('speaks:' .. daemon), epoch) end
  end
  i = i + 2
end

while i <= #ARGV do
  local kind, second, head, parts, kept = ARGV[i], ARGV[i + 1], ARGV[i + 2], tonumber(ARGV[i + 3]), {}
  i = i + 4
  for _ = 1, parts do
    table.insert(kept, ARGV[i])
    table.insert(kept, ARGV[i + 1] .. ' ' .. ARGV[i + 2] .. ' ' .. ARGV[i + 3])
    i = i + 4
  end
  if has_room(limit) then
    write(daemon, batch, kind, second, head, kept)
  else
    answer[2] = answer[2] + 1
    for j = 1, #kept, 2 do
      call('HINCRBY', at('shed'), kept[j], string.match(kept[j + 1], '^%d+ (%d+)'))
    end
  end
end
touch('rows', 'shed')
answered('S', daemon, answer)
return answer
