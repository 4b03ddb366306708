if call('EXISTS', at('run')) == 0 then return nil end
call('HSET', at('run'), 'restored', '1')
return 1
