-- ARGV: daemon, batch, bytes the stream may take; how many states, by state: topic, token, total before, state;
-- by entry: kind, second, head, how many parts, by part: topic, token, samples, body.
local daemon, batch, limit = ARGV[4], ARGV[5], ARGV[6]
local answer = repeated('R', daemon, batch)
if answer then return answer end
answer = {tonumber(batch), 0}
local mine, fenced = at('held:' .. daemon), {}
local function fence(topic)
  if not fenced[topic] then
    fenced[topic] = true
    table.insert(answer, topic)
  end
end

local i = 8
for _ = 1, tonumber(ARGV[7]) do
  local topic, token, before = ARGV[i], ARGV[i + 1], tonumber(ARGV[i + 2])
  local ready, used = held(daemon, topic, token)
  if not ready then
    fence(topic)
  else
    if used == '0' then call('HSET', mine, topic, token .. ' ' .. ready .. ' 1') end
    local stored, dropped = counts(topic)
    if before > stored + dropped then
      call('HSET', at('counts'), topic, text(stored) .. ' ' .. text(before - stored))
    end
    call('HSET', at('states'), topic, ARGV[i + 3])
  end
  i = i + 4
end

while i <= #ARGV do
  local kind, second, head, parts, kept = ARGV[i], ARGV[i + 1], ARGV[i + 2], tonumber(ARGV[i + 3]), {}
  i = i + 4
  for _ = 1, parts do
    local topic, token = ARGV[i], ARGV[i + 1]
    if not held(daemon, topic, token) then
      fence(topic)
    else
      table.insert(kept, topic)
      table.insert(kept, token .. ' ' .. ARGV[i + 2] .. ' ' .. ARGV[i + 3])
    end
    i = i + 4
  end
  if #kept > 0 or parts == 0 then
    -- Nothing is dropped for an entry of which the fences leave nothing.
    local full = not has_room(limit)
    for j = 1, #kept, 2 do
      local topic, samples = kept[j], tonumber(string.match(kept[j + 1], '^%d+ (%d+)'))
      local stored, dropped = counts(topic)
      if full then dropped = dropped + samples else stored = stored + samples end
      call('HSET', at('counts'), topic, text(stored) .. ' ' .. text(dropped))
    end
    if full then answer[2] = answer[2] + 1 else write(daemon, batch, kind, second, head, kept) end
  end
end
touch('counts', 'states')
answered('R', daemon, answer)
return answer
