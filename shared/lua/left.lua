-- ARGV: worker: it says that it goes, and with it the word to drain
forget_worker(ARGV[1])
redis.call('DEL', key('drain', ARGV[1]))
return 'ok'
