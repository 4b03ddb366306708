-- Deletes every key of the partition.
for _, daemon in ipairs(call('HKEYS', at('leases'))) do
  call('UNLINK', at('held:' .. daemon), at('speaks:' .. daemon))
end
for _, name in ipairs({'newest', 'leases', 'devices', 'rows', 'topics', 'free', 'closed', 'left', 'counts', 'states', 'shed',
  'batches', 'latency', 'limit', 'plotter', 'cuts', 'cumulative', 'cursors'}) do
  call('UNLINK', at(name))
end
