-- Takes the member's seat away, and remembers for a day that it was not forgotten but taken. The twin of SeatModel::release.
-- KEYS  .., ...:invites, ...:clients
-- ARGV  .. member
-- Reply 1: there was one, 0
call('ZREMRANGEBYSCORE', gone, '-inf', now - 86400000)
call('ZADD', gone, now, ARGV[4])
call('HDEL', KEYS[4], ARGV[4])
call('HDEL', KEYS[5], ARGV[4])
return {call('ZREM', seats, ARGV[4])}
