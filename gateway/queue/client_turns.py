"""Whose task is the next one, as functions of our scripts in Redis.

Clients take turns: `yolo:turns` lists those with waiting tasks of normal priority, each by the name of the list of
these tasks, `yolo:waiting:<client>`; the first in turn gives its oldest task and goes to the end. So a client waits for
at most one task of each other client, however many they have, and its own keep their order. `yolo:turn_of` has for each
of these tasks the list that it is in. What is queued but not there was put back, and is taken first.
"""

# KEYS 8 to 10: waiting tasks of the client, turns, whose turn each task waits for.
WAIT = """
local function wait_for_turn(id)
    if redis.call('rpush', KEYS[8], id) == 1 and not redis.call('lpos', KEYS[9], KEYS[8]) then
        redis.call('rpush', KEYS[9], KEYS[8])  -- it may stand there still: its tasks have expired
    end
    redis.call('hset', KEYS[10], id, KEYS[8])
end
"""

# `high`: queue of high priority; `turns`, `turn_of`: as above.
LEAVE = """
local function leave(id, high, turns, turn_of)
    local waiting = redis.call('hget', turn_of, id)
    if not waiting then return redis.call('lrem', high, 1, id) end
    redis.call('hdel', turn_of, id)
    redis.call('lrem', waiting, 1, id)
    if redis.call('exists', waiting) == 0 then redis.call('lrem', turns, 1, waiting) end
end
"""

# KEYS 2 and 4 to 7: queue, queue of high priority, its run, turns, whose turn each task waits for. ARGV 5: longest run.
# Needs LEAVE.
TAKE = """
local function was_put_back(id)
    local waiting = redis.call('hget', KEYS[7], id)
    if waiting then return redis.call('lindex', waiting, 0) ~= id end
    return not redis.call('lpos', KEYS[4], id)
end
local function is_turn_of_high(high, others)
    if high == 0 or others <= 0 then return high > 0 end
    if redis.call('incr', KEYS[5]) <= tonumber(ARGV[5]) then return true end
    redis.call('del', KEYS[5])
    return false
end
local function first_in_turn()
    local waiting = redis.call('lmove', KEYS[6], KEYS[6], 'left', 'right')
    local id = waiting and redis.call('lpop', waiting)
    if id then redis.call('hdel', KEYS[7], id) end
    if waiting and redis.call('exists', waiting) == 0 then redis.call('rpop', KEYS[6]) end
    return id
end
local function take()
    local head, high = redis.call('lindex', KEYS[2], 0), redis.call('llen', KEYS[4])
    local id
    if not (head and was_put_back(head)) then
        local is_high = is_turn_of_high(high, redis.call('llen', KEYS[2]) - high)
        id = is_high and redis.call('lpop', KEYS[4]) or first_in_turn()
    end
    if not id then
        if not head then return end
        id = head
        leave(id, KEYS[4], KEYS[6], KEYS[7])
    end
    local from = id == head and 1 or -1  -- whoever has fewer waiting than the first came later
    if redis.call('lrem', KEYS[2], from, id) == 0 then return take() end  -- a worker of an older version has it
    return id
end
"""

# KEYS: queue, queue of high priority, turns, whose turn each task waits for. ARGV: id. How many tasks go first, apart
# from the shares of those that are behind: of the other clients as many as this one has before it, if they have them.
# More than MOST clients are judged by the first of them: each takes time, at every look of every stream of events.
POSITION = """
local MOST = 100
local mine = redis.call('lpos', KEYS[1], ARGV[1])
if not mine then return false end
local high = redis.call('lpos', KEYS[2], ARGV[1])
if high then return high end
local waiting = redis.call('hget', KEYS[4], ARGV[1])
local own, place = waiting and redis.call('lpos', waiting, ARGV[1]), waiting and redis.call('lpos', KEYS[3], waiting)
if not own or not place then return mine end
local clients = redis.call('llen', KEYS[3])
local put_back = redis.call('llen', KEYS[1]) - redis.call('llen', KEYS[2]) - redis.call('hlen', KEYS[4])
local ahead = redis.call('llen', KEYS[2]) + math.max(put_back, 0) + own
local looked_at, earlier, later, exact = 0, 0, 0, 0
for at, other in ipairs(redis.call('lrange', KEYS[3], 0, MOST - 1)) do
    if other ~= waiting then
        local has = redis.call('llen', other)
        local if_earlier, if_later = math.min(has, own + 1), math.min(has, own)
        looked_at, earlier, later = looked_at + 1, earlier + if_earlier, later + if_later
        exact = exact + (at <= place and if_earlier or if_later)
    end
end
if clients <= MOST then return ahead + exact end
return ahead + math.floor((place * earlier + (clients - 1 - place) * later) / looked_at)
"""
