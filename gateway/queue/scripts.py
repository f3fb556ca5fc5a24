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

Clients take turns (`client_turns`).

A Redis that is full refuses commands that may take memory, but not in a script that has written something already. So
each script whose work must go on begins with a command that frees.
"""

from collections.abc import Iterable, Sequence

import redis

from gateway.queue import client_turns, retention, rq_lua
from gateway.redis_names import FREEING
from gateway.redis_pipelined import Command, Word

# Larger images go past the script that begins a task: to Lua each string is copied, and hashed from end to end.
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

# KEYS: ledger, sum, reserves, their sum, idempotency, result of the first task, tasks of the client, those of them that
# wait for their turn, turns, whose turn each task waits for, queue of high priority, then as for `rq_lua.ENQUEUE`.
# ARGV: most tasks, most bytes, share of Redis' memory, prefix of batches, the client's most tasks and bytes, seconds to
# keep its tasks and images, 1 if they wait for their turn (0: they have high priority), prefix of images, seven for
# `rq_lua.ENQUEUE`, number of tasks, (id, bytes, reserve, data) of each, commands.
# Each image has a place then, which the caller fills in the same transaction. With 'look' nothing is accepted.
# What the client has open is an upper bound, `sum` and the number of fields; it is counted only once that is reached.
ACCEPT = (
    _RUN
    + retention.MEMORY
    + rq_lua.ENQUEUE
    + client_turns.WAIT
    + """
local FIRST, WORDS = 18, 4
local function of_task(number, word) return ARGV[FIRST + WORDS * (number - 1) + word - 1] end
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
if redis.call('hexists', KEYS[1], of_task(1, 1)) == 1 or redis.call('exists', KEYS[6]) == 1 then
    return {'accepted'}  -- the answer was lost, the client library asks again
end
local number, bytes, reserve = tonumber(ARGV[FIRST - 1]), 0, 0
for i = 1, number do bytes, reserve = bytes + of_task(i, 2), reserve + of_task(i, 3) end
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
if ARGV[8] == 'look' then return {'room'} end
for i = 1, number do
    local id, size = of_task(i, 1), of_task(i, 2)
    redis.call('hset', KEYS[1], id, size)
    redis.call('hset', KEYS[3], id, of_task(i, 3))
    redis.call('hset', KEYS[7], id, size)
    if ARGV[8] == '1' then wait_for_turn(id) else redis.call('rpush', KEYS[11], id) end
    enqueue(id, of_task(i, 4))
    redis.call('set', ARGV[9] .. id, '', 'ex', ARGV[7])
end
redis.call('hincrby', KEYS[7], 'sum', bytes)
for at = 7, 11 do redis.call('expire', KEYS[at], ARGV[7]) end
redis.call('incrby', KEYS[2], bytes)
redis.call('incrby', KEYS[4], reserve)
run(FIRST + WORDS * number)
return {'accepted'}
"""
)

# KEYS: tasks of the client with a callback, ledger, deliveries. ARGV: from which number on they are counted.
# How many have not ended or wait for their receiver; below that number perhaps fewer.
CALLBACKS = """
if redis.call('scard', KEYS[1]) >= tonumber(ARGV[1]) then
    for _, id in ipairs(redis.call('smembers', KEYS[1])) do
        if redis.call('hexists', KEYS[2], id) == 0 and not redis.call('zscore', KEYS[3], id) then
            redis.call('srem', KEYS[1], id)
        end
    end
end
return redis.call('scard', KEYS[1])
"""

# KEYS: ledger, queue, intermediate queue, queue of high priority, its run, turns, whose turn each task waits for, then
# as for `rq_lua.BEGIN`.
# ARGV: prefixes of job and image; the most bytes of an image that is to come along; the channel of events; the longest
# run; those for `rq_lua.BEGIN`; 1 if BLMOVE was sent just before.
_BEGIN = (
    FREEING
    + rq_lua.BEGIN
    + """
local function begun(id)
    local job = redis.call('hmget', ARGV[1] .. id, 'data', 'retries_left', 'former')
    if not job[1] or redis.call('hexists', KEYS[1], id) == 0 then return end
    begin(id)
    redis.call('publish', ARGV[4], id .. ':started')
    local image = ARGV[2] .. id
    local small = redis.call('strlen', image) <= tonumber(ARGV[3])
    return {id, job[1], job[2], small and redis.call('get', image), job[3]}
end
"""
)

# What BLMOVE has moved is the next one if nothing else waits. Else it goes back, with whatever is there since a worker
# died, and whoever's turn it is comes first.
# What is not open any more, canceled or ended by a worker that was believed dead, is dropped on the way.
CLAIM = (
    _BEGIN
    + client_turns.LEAVE
    + client_turns.TAKE
    + """
local id
if ARGV[13] == '1' then
    if redis.call('llen', KEYS[3]) == 1 and redis.call('exists', KEYS[2]) == 0 then
        id = redis.call('lpop', KEYS[3])
        leave(id, KEYS[4], KEYS[6], KEYS[7])
    end
    while not id and redis.call('lmove', KEYS[3], KEYS[2], 'right', 'left') do end
end
id = id or take()
while id do
    local found = begun(id)
    if found then return found end
    redis.call('del', ARGV[1] .. id)
    id = take()
end
if redis.call('exists', KEYS[2]) == 0 then  -- what workers of an older version took is still waiting here
    for _, waiting in ipairs(redis.call('lrange', KEYS[6], 0, -1)) do redis.call('del', waiting) end
    redis.call('del', KEYS[4], KEYS[6], KEYS[7])
end
"""
)

# The same KEYS and ARGV. The task of an execution whose CLAIM may have run, its answer lost; it is as if begun now.
# Whose heartbeat has stopped meanwhile may be believed dead, and is in the worker's set only.
RESUME = (
    _BEGIN
    + """
for _, both in ipairs(redis.call('smembers', KEYS[9])) do
    local id, execution = string.match(both, '(.*):(.*)')
    if execution == ARGV[10] and redis.call('zscore', KEYS[8], both) then return begun(id) end
end
"""
)

# KEYS: ledger to sum of large results (`retention`), then as for `rq_lua.FINISH`.
# ARGV: five, as there, the execution or '', commands for an open task.
END = (
    _RUN
    + _RELEASE
    + retention.RESULTS
    + rq_lua.FINISH
    + """
if ARGV[6] ~= '' then drop_execution(ARGV[1], ARGV[6]) end
if not release(ARGV[1]) then return 0 end
if ARGV[6] ~= '' then redis.call('del', KEYS[16], KEYS[15]) end
run(7)
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
# high priority, turns, whose turn each task waits for.
# ARGV: five, as there, the result that is to be kept, commands.
CANCEL = (
    _RUN
    + client_turns.LEAVE
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
leave(ARGV[1], KEYS[17], KEYS[18], KEYS[19])
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


def words(pipe: "redis.client.Pipeline") -> Sequence[Word]:
    """The commands that a pipeline has collected, as a script takes them."""
    return flat(command for command, _ in pipe.command_stack)


def flat(commands: Iterable[Command]) -> list[Word]:
    """Commands as a script takes them: each after the number of its words."""
    return [word for command in commands for word in (len(command), *command)]
