-- ARGV: worker: it says that it goes
forget_worker(ARGV[1])
return 'ok'
