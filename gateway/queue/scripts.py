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

A Redis that is full refuses commands that may take memory, but not in a script that has written something already. So
each script whose work must go on begins with a command that frees.
"""

from collections.abc import Sequence

import redis

from gateway.queue import retention

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

FREEING = "redis.call('del', KEYS[1] .. ':')  -- a full Redis takes what follows\n"  # no key has such a name

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

# KEYS: ledger, sum, reserves, their sum, idempotency, result of the first task, tasks of the client.
# ARGV: most tasks, most bytes, share of Redis' memory, prefix of batches, the client's most tasks and bytes, seconds to
# keep its tasks, number of tasks, (id, bytes, reserve) of each, commands.
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
if redis.call('hexists', KEYS[1], ARGV[9]) == 1 or redis.call('exists', KEYS[6]) == 1 then
    return {'accepted'}  -- the answer was lost, the client library asks again
end
local number, bytes, reserve = tonumber(ARGV[8]), 0, 0
for i = 1, number do
    bytes, reserve = bytes + tonumber(ARGV[7 + 3 * i]), reserve + tonumber(ARGV[8 + 3 * i])
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
    redis.call('hset', KEYS[1], ARGV[6 + 3 * i], ARGV[7 + 3 * i])
    redis.call('hset', KEYS[3], ARGV[6 + 3 * i], ARGV[8 + 3 * i])
    redis.call('hset', KEYS[7], ARGV[6 + 3 * i], ARGV[7 + 3 * i])
end
redis.call('hincrby', KEYS[7], 'sum', bytes)
redis.call('expire', KEYS[7], ARGV[7])
redis.call('incrby', KEYS[2], bytes)
redis.call('incrby', KEYS[4], reserve)
run(9 + 3 * number)
return {'accepted'}
"""
)

# A placeholder for the id in the commands that are to be run for a task which the script itself picks.
THE_TASK = "THE_TASK"

# KEYS: ledger, queue, intermediate queue, queue of high priority, its run.
# ARGV: id that was moved to the intermediate queue, or '' for the next of the queue; prefixes of job and image; the
# most bytes of an image that is to come along; THE_TASK; the longest run; commands.
# What is not open any more, canceled or ended by a worker that was believed dead, is dropped on the way.
CLAIM = (
    _RUN
    + """
local function first_of_others()
    local high = {}
    for _, id in ipairs(redis.call('lrange', KEYS[4], 0, -1)) do high[id] = true end
    for at = 0, redis.call('llen', KEYS[2]), 100 do
        for _, id in ipairs(redis.call('lrange', KEYS[2], at, at + 99)) do
            if not high[id] then return id end
        end
    end
end
local function take()
    local high = redis.call('llen', KEYS[4])
    if high == 0 then return redis.call('lpop', KEYS[2]) end
    local others = redis.call('llen', KEYS[2]) > high
    local id
    if others and tonumber(redis.call('get', KEYS[5]) or '0') >= tonumber(ARGV[6]) then
        redis.call('del', KEYS[5])
        id = first_of_others()
    end
    if not id then
        id = redis.call('lpop', KEYS[4])
        if others then redis.call('incr', KEYS[5]) end
    end
    if redis.call('lrem', KEYS[2], 1, id) == 0 then return take() end  -- a worker of an older version has it
    return id
end
local id = ARGV[1]
if id ~= '' and redis.call('lrem', KEYS[3], 1, id) == 1 then
    redis.call('lrem', KEYS[4], 1, id)
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
"""
)

# KEYS: queue, queue of high priority. ARGV: id. How many tasks go first, apart from the share of those that are not
# of high priority: these are behind all of it, of which `low` were accepted before.
POSITION = """
local mine, first = redis.call('lpos', KEYS[1], ARGV[1]), redis.call('lpos', KEYS[2], ARGV[1])
if not mine or first then return mine and first end
local low, high = 0, redis.call('llen', KEYS[2])
local all = high
while low < high do
    local middle = math.floor((low + high) / 2)
    local at = redis.call('lpos', KEYS[1], redis.call('lindex', KEYS[2], middle))
    if at and at > mine then high = middle else low = middle + 1 end
end
return mine + all - low
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

# KEYS: RQ's registry of executions. ARGV: the execution, commands.
# A worker that was believed dead has none any more, nor has one whose answer was lost and that does it again.
GIVE_BACK = _RUN + "if redis.call('zrem', KEYS[1], ARGV[1]) == 1 then run(2) end"

# KEYS: ledger to sum of large results (`retention`), then queue, picture, job, index of pictures, their sum, queue of
# high priority.
# ARGV: five, as there, commands.
CANCEL = (
    _RUN
    + _RELEASE
    + retention.RESULTS
    + """
if redis.call('exists', KEYS[7]) == 1 then
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
release(ARGV[1])
run(6)
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
