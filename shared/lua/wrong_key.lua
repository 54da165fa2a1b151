-- ARGV: an address, how many wrong API keys may come from one in a minute
-- Counts a wrong key from there. Answers for how many ms there have been too many; 0 when this one is told what it is.
local taken = take(key('wrong-keys', ARGV[1]), tonumber(ARGV[2]))
return taken[2]
