-- Names of all runs with the time they were added, newest first, and the time now.
return {call('ZREVRANGE', at('index'), 0, -1, 'WITHSCORES'), text(now())}
