-- Begins every script. KEYS[1]: what all keys of the run or the partition begin with, hash tag included.
-- ARGV[1]: how long keys live, in ms; ARGV[2]: the channel of announcements, or nothing; ARGV[3]: "run" or "run partition".
local call = redis.call
local function at(name) return KEYS[1] .. name end
local function announce(kind)
  if ARGV[2] ~= '' then call('PUBLISH', ARGV[2], kind .. ' ' .. ARGV[3]) end
end
local function touch(...)
  for _, name in ipairs({...}) do call('PEXPIRE', at(name), ARGV[1]) end
end
local function text(number) return string.format('%.0f', number) end
local function now() -- microseconds
  local time = call('TIME')
  return time[1] * 1000000 + time[2]
end
-- The token or counter after `previous`: never below the time, so that what a rollback forgot is not given out again.
local function following(previous) return math.max(previous + 1, now()) end
