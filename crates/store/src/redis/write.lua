-- What both flushes share. An entry is one stream entry: six fields of its head, then one field a topic.
local PARTS = 1500 -- more would not fit Lua's stack: the rest becomes an entry of its own

-- The answer to a flush that was answered before: {batch, shed, fenced…}.
local function repeated(side, daemon, batch)
  local last = call('HGET', at('batches'), side .. daemon)
  if not last then return nil end
  local answer = cjson.decode(last)
  if tonumber(batch) > answer[1] then return nil end
  if tonumber(batch) == answer[1] then return answer end
  -- The answers to earlier ones are known to the daemon, which sends one after the other.
  return {tonumber(batch), 0}
end
local function answered(side, daemon, answer)
  call('HSET', at('batches'), side .. daemon, cjson.encode(answer))
  touch('batches')
end
-- Drops the oldest cut that the slowest sinks have not passed, for them alone: their cursors move, their samples in it
-- count. Nothing when every sink has passed every cut. Cuts and cursors: see hold.lua.
local function drop_oldest_cut()
  local cursors, slowest = call('HGETALL', at('cursors')), nil
  for i = 2, #cursors, 2 do
    local cut = tonumber(string.match(cursors[i], '^%d+'))
    slowest = math.min(slowest or cut, cut)
  end
  local cuts, oldest = {}, nil
  for _, cut in ipairs(slowest and call('LRANGE', at('cuts'), 0, -1) or {}) do
    local number, ms, seq, second = string.match(cut, '^(%d+) (%d+) (%d+) (-?%d+)$')
    table.insert(cuts, {tonumber(ms), tonumber(seq), tonumber(second), number = number, id = ms .. '-' .. seq})
    if tonumber(number) > slowest then
      oldest = cuts[#cuts]
      break
    end
  end
  if not oldest then return false end
  -- An entry belongs to the first cut that reaches its id and its second.
  local function is_in_it(id, second)
    local ms, seq = string.match(id, '^(%d+)-(%d+)$')
    ms, seq = tonumber(ms), tonumber(seq)
    for _, cut in ipairs(cuts) do
      if (ms < cut[1] or (ms == cut[1] and seq <= cut[2])) and second <= cut[3] then return cut == oldest end
    end
  end
  local samples, from = {}, '-'
  while true do
    local page = call('XRANGE', at('latency'), from, oldest.id, 'COUNT', 64)
    if #page == 0 then break end
    for _, entry in ipairs(page) do
      local fields = entry[2]
      if is_in_it(entry[1], tonumber(fields[10])) then
        for i = 13, fields[8] == 'R' and #fields or 0, 2 do
          samples[fields[i]] = (samples[fields[i]] or 0) + tonumber(string.match(fields[i + 1], '^%d+ (%d+)'))
        end
        call('XDEL', at('latency'), entry[1])
      end
    end
    from = '(' .. page[#page][1]
  end
  for i = 1, #cursors, 2 do
    local cut, json = string.match(cursors[i + 1], '^(%d+) (.*)$')
    if tonumber(cut) < tonumber(oldest.number) then
      local cursor = cjson.decode(json)
      cursor.cut = tonumber(oldest.number)
      for topic, count in pairs(samples) do
        local counts = cursor.topics[topic] or {}
        counts.sink_dropped = (counts.sink_dropped or 0) + count
        cursor.topics[topic] = counts
      end
      call('HSET', at('cursors'), cursors[i], oldest.number .. ' ' .. cjson.encode(cursor))
    end
  end
  return true
end
-- Whether an entry may be stored; what slow sinks hold back makes room for it.
local function has_room(limit)
  local most = tonumber(call('GET', at('limit')) or limit)
  while (call('MEMORY', 'USAGE', at('latency')) or 0) >= most do
    if not drop_oldest_cut() then return false end
  end
  return true
end
-- `parts`: topic and value by turns.
local function write(daemon, batch, kind, second, head, parts)
  local from = 1
  repeat
    local fields = {'v', '1', 'daemon', daemon, 'batch', batch, 'kind', kind, 'second', second, 'head', head}
    for i = from, math.min(#parts, from + 2 * PARTS - 1) do table.insert(fields, parts[i]) end
    call('XADD', at('latency'), '*', unpack(fields))
    from = from + 2 * PARTS
  until from > #parts
  touch('latency')
end
