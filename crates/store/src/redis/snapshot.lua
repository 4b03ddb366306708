-- ARGV: what is wanted: devices, topics or all. Answers, by turns of key and value within each:
-- devices, rows; topics, closed (members), held (daemon, topic, value), left, counts; states, cumulative, newest cut,
-- cursors, pending.
local wanted = ARGV[4]
local function hash(name) return call('HGETALL', at(name)) end
local devices, topics, counted = {{}, {}}, {{}, {}, {}, {}, {}}, {{}, {}, false, {}, {}}
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
  -- Samples in entries that no cut holds, counted in the entries themselves.
  local cut = call('LINDEX', at('cuts'), -1)
  local _, last_ms, last_seq, cut_second = string.match(cut or '0 0 0 0', '^(%d+) (%d+) (%d+) (-?%d+)$')
  last_ms, last_seq, cut_second = tonumber(last_ms), tonumber(last_seq), tonumber(cut_second)
  local function is_cut(id, second)
    local ms, seq = string.match(id, '^(%d+)-(%d+)$')
    ms, seq = tonumber(ms), tonumber(seq)
    return cut and (ms < last_ms or (ms == last_ms and seq <= last_seq)) and second <= cut_second
  end
  -- Nothing is received in a second before it begins, so entries an hour older than the cut's second are in it.
  local from = cut and text(math.max(0, (cut_second - 3600) * 1000)) or '-'
  local pending, order = {}, {}
  while true do
    local page = call('XRANGE', at('latency'), from, '+', 'COUNT', 256)
    if #page == 0 then break end
    for _, entry in ipairs(page) do
      local fields = entry[2]
      if fields[8] == 'R' and not is_cut(entry[1], tonumber(fields[10])) then
        for i = 13, #fields, 2 do
          local topic, samples = fields[i], string.match(fields[i + 1], '^%d+ (%d+)')
          if not pending[topic] then table.insert(order, topic) end
          pending[topic] = (pending[topic] or 0) + tonumber(samples)
        end
      end
    end
    from = '(' .. page[#page][1]
  end
  local flat = {}
  for _, topic in ipairs(order) do
    table.insert(flat, topic)
    table.insert(flat, text(pending[topic]))
  end
  counted = {hash('states'), hash('cumulative'), cut, hash('cursors'), flat}
end
return {devices, topics, counted}
