-- ARGV: what is wanted: devices, topics or all. Answers, by turns of key and value within each:
-- devices, rows; topics, closed (members), held (daemon, topic, value), left, counts; states, cumulative, newest cut,
-- cursors, pending, behind (sink, then topic and samples by turns), unplotted, shed.
local wanted = ARGV[4]
local function hash(name) return call('HGETALL', at(name)) end
local devices, topics, counted = {{}, {}}, {{}, {}, {}, {}, {}}, {{}, {}, false, {}, {}, {}, {}, {}}
if wanted ~= 'topics' then devices = {hash('devices'), hash('rows')} end
if wanted ~= 'devices' then
  local claims = {}
  for _, daemon in ipairs(call('HKEYS', at('leases'))) do
    local held = hash('held:' .. daemon)
    for i = 1, #held, 2 do
      table.insert(claims, daemon)
      table.insert(claims, held[i])
      table.insert(claims, held[i + 1])
    end
  end
  topics = {call('HKEYS', at('topics')), call('SMEMBERS', at('closed')), claims, hash('left'), hash('counts')}
end
if wanted == 'all' then
  -- Samples in entries that no cut holds, and by sink those in cuts that its cursor has not passed; of producers, what
  -- entries that no cut holds say was sent: counted in the entries themselves.
  local newest, cuts, cursors = false, {}, hash('cursors')
  for _, cut in ipairs(call('LRANGE', at('cuts'), 0, -1)) do
    local number, ms, seq, second = string.match(cut, '^(%d+) (%d+) (%d+) (-?%d+)$')
    newest = {ms = tonumber(ms), seq = tonumber(seq), second = tonumber(second), text = cut}
    cuts[number] = newest
  end
  local function holds(cut, ms, seq, second)
    return cut and (ms < cut.ms or (ms == cut.ms and seq <= cut.seq)) and second <= cut.second
  end
  local slowest, sinks = newest, {}
  for i = 1, #cursors, 2 do
    local passed = cuts[string.match(cursors[i + 1], '^%d+')] or false
    table.insert(sinks, {name = cursors[i], passed = passed})
    if slowest and (not passed or passed.second < slowest.second) then slowest = passed end
  end
  local function add(to, fields)
    for i = 13, #fields, 2 do
      local key, number = fields[i], string.match(fields[i + 1], '^%d+ (%d+)')
      if not to.numbers[key] then table.insert(to.order, key) end
      to.numbers[key] = (to.numbers[key] or 0) + tonumber(number)
    end
  end
  local function flat(counts)
    local list = {}
    for _, key in ipairs(counts.order) do
      table.insert(list, key)
      table.insert(list, text(counts.numbers[key]))
    end
    return list
  end
  local function none() return {order = {}, numbers = {}} end
  local pending, unplotted, behind = none(), none(), {}
  for _, sink in ipairs(sinks) do behind[sink.name] = none() end
  -- What a cut does not hold has an id above its own, or is of a later second: and nothing is received in a second before it
  -- begins, but for clocks that differ by less than an hour.
  local from = '-'
  if slowest then
    local since = math.min((slowest.second - 3600) * 1000, slowest.ms, newest.ms)
    from = text(math.max(0, since))
  end
  while true do
    local page = call('XRANGE', at('latency'), from, '+', 'COUNT', 256)
    if #page == 0 then break end
    for _, entry in ipairs(page) do
      local fields = entry[2]
      local ms, seq = string.match(entry[1], '^(%d+)-(%d+)$')
      ms, seq = tonumber(ms), tonumber(seq)
      local received, second = fields[8] == 'R', tonumber(fields[10])
      if not holds(newest, ms, seq, second) then
        add(received and pending or unplotted, fields)
      elseif received then
        for _, sink in ipairs(sinks) do
          if not holds(sink.passed, ms, seq, second) then add(behind[sink.name], fields) end
        end
      end
    end
    from = '(' .. page[#page][1]
  end
  local lists = {}
  for _, sink in ipairs(sinks) do
    table.insert(lists, sink.name)
    table.insert(lists, flat(behind[sink.name]))
  end
  counted = {
    hash('states'), hash('cumulative'), newest and newest.text, cursors, flat(pending), lists, flat(unplotted),
    hash('shed'),
  }
end
return {devices, topics, counted}
