-- KEYS[1] only leads here. Answers the time (s, us) and the server's own words, which hold its run id.
local time = redis.call('TIME')
return {time[1], time[2], redis.call('INFO', 'server')}
