"""Changes of a task's state as one step in Redis: the commands of a pipeline, run by a script if they still apply.

`yolo:open` is the ledger of open tasks: a hash of every task that was accepted and has not ended, with the bytes that
it takes and may take; `yolo:open_bytes` is the sum. How much of that is kept for its end is in `yolo:reserves` and
`yolo:reserved_bytes`. A task enters the ledger when it is accepted and leaves it when it finishes. Whatever a worker
that was believed dead, a lost answer or a second worker wants to do to a task that is not in it, is not done.

`yolo:group:<id>`, of a batch or of a single task with an Idempotency-Key, counts its `open` tasks and those that are
`kept`, not deleted; `key` is what the Idempotency-Key is stored under. All of it lives as long as its last result.

`rq:queue:predict` lists all tasks that wait, `yolo:high` those of them with priority=high, both in the order of their
acceptance: what is removed from the first is not queued any more, whatever the second says. `yolo:high_run` counts how
many of high priority were begun in a row while others waited.

`yolo:line` lists the first few tasks of each client, which begin before what clients with more have beyond them: a
client in a hurry waits for a few of each other client, not for all of the greediest. Once tasks of a client are beyond,
all that follow are, until these have begun: its own tasks keep their order. `yolo:line_places` has for each waiting
task where it stands, `yolo:line_counts` how many stand there, `yolo:line_run` is for the line what `yolo:high_run` is.

A Redis that is full refuses commands that may take memory, but not in a script that has written something already. So
each script whose work must go on begins with a command that frees.
"""

from collections.abc import Sequence

import redis

from gateway.queue import retention
from gateway.redis_names import FREEING

# Larger images go past the scripts: to Lua each string is copied, and hashed from end to end.
SCRIPT_BYTES = 500_000

_RUN = """
local function run(at, last)
    while at <= (last or #ARGV) do
        local words = tonumber(ARGV[at])
        redis.call(unpack(ARGV, at + 1, at + words))
        at = at + words + 1
    end
end
"""

# KEYS: any name. ARGV: commands.
INSIST = _RUN + FREEING + "run(1)"

# KEYS: the leader's. ARGV: milliseconds.
LEAD = FREEING + "return redis.call('set', KEYS[1], 1, 'nx', 'px', ARGV[1])"

# KEYS 1 to 4: ledger, sum, reserves, their sum.
_RELEASE = """
local function unreserve(id)
    local bytes = redis.call('hget', KEYS[3], id)
    redis.call('hdel', KEYS[3], id)
    if bytes then redis.call('decrby', KEYS[4], bytes) end
end
local function release(id)
    local bytes = redis.call('hget', KEYS[1], id)
    if bytes then
        redis.call('hdel', KEYS[1], id)
        redis.call('decrby', KEYS[2], bytes)
        unreserve(id)
    end
    return bytes
end
"""

# KEYS: ledger, sum, reserves, their sum, idempotency, result of the first task, tasks of the client,
# then as for `leave`.
# ARGV: most tasks, most bytes, share of Redis' memory, prefix of batches, the client's most tasks and bytes, seconds to
# keep its tasks, how many of them are in line (-1: they have high priority), number of tasks, (id, bytes, reserve) of
# each, commands.
# What the client has open is an upper bound, `sum` and the number of fields; it is counted only once that is reached.
ACCEPT = (
    _RUN
    + retention.MEMORY
    + """
local known = redis.call('get', KEYS[5])
if known then
    local batch = string.match(known, '"batch_id":"(%x+)"')
    known = batch and redis.call('get', ARGV[4] .. batch) or known
    local prefix = string.gsub(KEYS[6], '[^:]*$', '')
    for id in string.gmatch(known, '"task_id":"(%x+)"') do
        if redis.call('hexists', KEYS[1], id) == 1 or redis.call('exists', prefix .. id) == 1 then
            return {'known', known}
        end
    end  -- all of it has expired or was forgotten: the key is free again
end
if redis.call('hexists', KEYS[1], ARGV[10]) == 1 or redis.call('exists', KEYS[6]) == 1 then
    return {'accepted'}  -- the answer was lost, the client library asks again
end
local function stand_in_line(id)
    local ahead, beyond = KEYS[7] .. ':line', KEYS[7] .. ':beyond'
    local crowded = redis.call('hexists', KEYS[10], beyond) == 1
        or tonumber(redis.call('hget', KEYS[10], ahead) or '0') >= tonumber(ARGV[8])
    if not crowded then redis.call('rpush', KEYS[8], id) end
    redis.call('hset', KEYS[9], id, crowded and beyond or ahead)
    redis.call('hincrby', KEYS[10], crowded and beyond or ahead, 1)
end
local number, bytes, reserve = tonumber(ARGV[9]), 0, 0
for i = 1, number do
    bytes, reserve = bytes + tonumber(ARGV[8 + 3 * i]), reserve + tonumber(ARGV[9 + 3 * i])
end
local tasks, sum = redis.call('hlen', KEYS[1]), tonumber(redis.call('get', KEYS[2]) or '0')
if tasks == 0 then redis.call('del', KEYS[3], KEYS[4], KEYS[7]) end  -- workers of an older version leave reserves
if tasks > 0 and (tasks + number > tonumber(ARGV[1]) or sum + bytes > tonumber(ARGV[2])) then
    return {'overloaded', tasks, sum}
end
local used, most = memory()
local reserved = tonumber(redis.call('get', KEYS[4]) or '0')
if most > 0 and used + reserved + bytes > most * tonumber(ARGV[3]) then return {'full', used, reserved, most} end
local function beyond(open, held)
    return open > 0 and (open + number > tonumber(ARGV[5]) or held + bytes > tonumber(ARGV[6]))
end
local known_sum = tonumber(redis.call('hget', KEYS[7], 'sum') or '0')
if beyond(redis.call('hlen', KEYS[7]) - 1, known_sum) then
    local open, held, all = 0, 0, redis.call('hgetall', KEYS[7])
    for at = 1, #all, 2 do
        if redis.call('hexists', KEYS[1], all[at]) == 1 then
            open, held = open + 1, held + all[at + 1]
        else
            redis.call('hdel', KEYS[7], all[at])
        end
    end
    if open > 0 then redis.call('hset', KEYS[7], 'sum', held) end
    if beyond(open, held) then return {'client', open, held} end
end
for i = 1, number do
    redis.call('hset', KEYS[1], ARGV[7 + 3 * i], ARGV[8 + 3 * i])
    redis.call('hset', KEYS[3], ARGV[7 + 3 * i], ARGV[9 + 3 * i])
    redis.call('hset', KEYS[7], ARGV[7 + 3 * i], ARGV[8 + 3 * i])
    if tonumber(ARGV[8]) >= 0 then stand_in_line(ARGV[7 + 3 * i]) end
end
redis.call('hincrby', KEYS[7], 'sum', bytes)
for at = 7, 10 do redis.call('expire', KEYS[at], ARGV[7]) end
redis.call('incrby', KEYS[2], bytes)
redis.call('incrby', KEYS[4], reserve)
run(10 + 3 * number)
return {'accepted'}
"""
)

# A placeholder for the id in the commands that are to be run for a task which the script itself picks.
THE_TASK = "THE_TASK"

# KEYS: line, where each task stands, how many of a client.
_LEAVE = """
local function leave(id, line, places, counts)
    redis.call('lrem', line, 1, id)
    local place = redis.call('hget', places, id)
    if not place then return end
    redis.call('hdel', places, id)
    if redis.call('hincrby', counts, place, -1) <= 0 then redis.call('hdel', counts, place) end
end
"""

# KEYS: ledger, queue, intermediate queue, queue of high priority, line, where each task stands, how many of a client,
# the run of high priority, the run of the line.
# ARGV: id that was moved to the intermediate queue, or '' for the next of the queue; prefixes of job and image; the
# most bytes of an image that is to come along; THE_TASK; the longest run; commands.
# What is not open any more, canceled or ended by a worker that was believed dead, is dropped on the way.
CLAIM = (
    _RUN
    + _LEAVE
    + """
local function first_of_others()
    local ahead = {}
    for at = 4, 5 do
        for _, id in ipairs(redis.call('lrange', KEYS[at], 0, -1)) do ahead[id] = true end
    end
    for at = 0, redis.call('llen', KEYS[2]), 100 do
        for _, id in ipairs(redis.call('lrange', KEYS[2], at, at + 99)) do
            if not ahead[id] then return id end
        end
    end
end
local function is_turn_of(waiting, behind, run)
    if waiting == 0 then return false end
    if behind == 0 then return true end
    if redis.call('incr', run) <= tonumber(ARGV[6]) then return true end
    redis.call('del', run)
    return false
end
local function take()
    local high, line = redis.call('llen', KEYS[4]), redis.call('llen', KEYS[5])
    local others = redis.call('llen', KEYS[2]) - high - line
    local id
    local head = redis.call('lindex', KEYS[2], 0)
    if head and redis.call('hexists', KEYS[6], head) == 0 and (high == 0 or not redis.call('lpos', KEYS[4], head)) then
        id = head  -- it was put back
    elseif is_turn_of(high, line + math.max(others, 0), KEYS[8]) then
        id = redis.call('lpop', KEYS[4])
    elseif is_turn_of(line, math.max(others, 0), KEYS[9]) then
        id = redis.call('lindex', KEYS[5], 0)
    else
        id = first_of_others()
        local place = id and redis.call('hget', KEYS[6], id)
        if place and redis.call('hexists', KEYS[7], (string.gsub(place, ':beyond$', ':line'))) == 1 then
            id = nil  -- that client has older tasks in line
        end
        id = id or redis.call('lindex', KEYS[5], 0) or redis.call('lpop', KEYS[4])
    end
    if not id then return end
    leave(id, KEYS[5], KEYS[6], KEYS[7])
    if redis.call('lrem', KEYS[2], 1, id) == 0 then return take() end  -- a worker of an older version has it
    return id
end
local id = ARGV[1]
if id ~= '' and redis.call('lrem', KEYS[3], 1, id) == 1 then
    redis.call('lrem', KEYS[4], 1, id)
    leave(id, KEYS[5], KEYS[6], KEYS[7])
else  -- it is not there: it was believed lost, and put back
    id = take()
end
while id do
    local job = redis.call('hmget', ARGV[2] .. id, 'data', 'retries_left')
    if job[1] and redis.call('hexists', KEYS[1], id) == 1 then
        for at = 7, #ARGV do ARGV[at] = string.gsub(ARGV[at], ARGV[5], id) end
        run(7)
        local image = ARGV[3] .. id
        return {id, job[1], job[2], redis.call('strlen', image) <= tonumber(ARGV[4]) and redis.call('get', image)}
    end
    redis.call('del', ARGV[2] .. id)
    id = take()
end
if redis.call('llen', KEYS[2]) == 0 then redis.call('del', KEYS[5], KEYS[6], KEYS[7]) end  -- what others left
"""
)

# KEYS: queue, queue of high priority, line. ARGV: id. How many tasks go first, apart from the shares of those that are
# behind: all of high priority and in line, and of the others those that were accepted before.
POSITION = """
local mine = redis.call('lpos', KEYS[1], ARGV[1])
if not mine then return false end
local function accepted_later(list)
    local low, high = 0, redis.call('llen', list)
    local all = high
    while low < high do
        local middle = math.floor((low + high) / 2)
        local at = redis.call('lpos', KEYS[1], redis.call('lindex', list, middle))
        if at and at > mine then high = middle else low = middle + 1 end
    end
    return all - low
end
local first = redis.call('lpos', KEYS[2], ARGV[1])
if first then return first end
local ahead = redis.call('lpos', KEYS[3], ARGV[1])
if ahead then return redis.call('llen', KEYS[2]) + ahead end
return mine + accepted_later(KEYS[2]) + accepted_later(KEYS[3])
"""

# KEYS: ledger to sum of large results (`retention`).
# ARGV: five, as there, last word of the commands that are run in any case, these, commands for an open task.
END = (
    _RUN
    + _RELEASE
    + retention.RESULTS
    + """
run(7, tonumber(ARGV[6]))
if not release(ARGV[1]) then return 0 end
run(tonumber(ARGV[6]) + 1)
keep()
return 1
"""
)

# KEYS: ledger to sum of large results (`retention`), then RQ's registry of executions, job.
# ARGV: five, as there, the execution, the latest time until which it lives, last words of the commands that drop it and
# of those that queue the task again; these, commands that end the task.
# An execution that died or met a defect: its task is tried again, or ends after its last try. What is not in the
# registry any more was handled by the maintenance, and the task may run elsewhere by now.
FAIL = (
    _RUN
    + _RELEASE
    + retention.RESULTS
    + """
local lives_until = redis.call('zscore', KEYS[12], ARGV[6])
if not lives_until or tonumber(lives_until) > tonumber(ARGV[7]) then return 'left' end
run(10, tonumber(ARGV[8]))
if redis.call('hexists', KEYS[1], ARGV[1]) == 0 then
    redis.call('del', KEYS[13])
    return 'left'
end
local job = redis.call('hmget', KEYS[13], 'status', 'retries_left')
if job[1] ~= 'started' then return 'left' end
if tonumber(job[2] or '0') > 0 then
    run(ARGV[8] + 1, tonumber(ARGV[9]))
    return 'retry'
end
release(ARGV[1])
run(ARGV[9] + 1)
keep()
return 'ended'
"""
)

# KEYS: RQ's registry of executions. ARGV: the execution, commands.
# A worker that was believed dead has none any more, nor has one whose answer was lost and that does it again.
GIVE_BACK = _RUN + "if redis.call('zrem', KEYS[1], ARGV[1]) == 1 then run(2) end"

# KEYS: ledger to sum of large results (`retention`), then queue, picture, job, index of pictures, their sum, queue of
# high priority, then as for `leave`.
# ARGV: five, as there, the result that is to be kept, commands.
CANCEL = (
    _RUN
    + _LEAVE
    + _RELEASE
    + retention.RESULTS
    + """
local kept = redis.call('get', KEYS[7])
if kept == ARGV[6] then return 'canceled' end  -- the answer was lost, the client library asks again
if kept then
    local bytes = 0
    for _, kind in ipairs(redis.call('hkeys', KEYS[13])) do bytes = bytes + redis.call('hstrlen', KEYS[13], kind) end
    if redis.call('zrem', KEYS[15], ARGV[1] .. ':' .. bytes) == 1 then redis.call('decrby', KEYS[16], bytes) end
    redis.call('del', KEYS[13], KEYS[14])
    forget()
    return 'forgotten'
end
if redis.call('hexists', KEYS[1], ARGV[1]) == 0 then return 'unknown' end
if redis.call('lrem', KEYS[12], 1, ARGV[1]) == 0 then return 'running' end
redis.call('lrem', KEYS[17], 1, ARGV[1])
leave(ARGV[1], KEYS[18], KEYS[19], KEYS[20])
release(ARGV[1])
run(7)
keep()
return 'canceled'
"""
)

# KEYS: ledger, sum, reserves, their sum. ARGV: ids that have a reserve. Drops those of tasks that are not open.
UNRESERVE = (
    _RELEASE
    + """
for _, id in ipairs(ARGV) do
    if redis.call('hexists', KEYS[1], id) == 0 then unreserve(id) end
end
"""
)

# KEYS: between, queue. ARGV: id. The id goes back only if nobody has begun the task in the meantime.
RESCUE = "if redis.call('lrem', KEYS[1], 1, ARGV[1]) == 1 then return redis.call('lpush', KEYS[2], ARGV[1]) end"


def words(pipe: "redis.client.Pipeline") -> Sequence[bytes | str | int | float]:
    """The commands that a pipeline has collected, as a script takes them: each after the number of its words."""
    flat: list[bytes | str | int | float] = []
    for command, _ in pipe.command_stack:
        flat.append(len(command))
        flat.extend(command)
    return flat
