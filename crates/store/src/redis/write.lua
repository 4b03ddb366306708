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
local function is_full(limit)
  local most = tonumber(call('GET', at('limit')) or limit)
  return (call('MEMORY', 'USAGE', at('latency')) or 0) >= most
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
