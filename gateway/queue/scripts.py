"""Changes of a task's state as one step in Redis: the commands of a pipeline, run by a script if they still apply.

`yolo:open` is the ledger of open tasks: a hash of every task that was accepted and has not ended, with the bytes of its
image; `yolo:open_bytes` is the sum. A task enters the ledger when it is accepted and leaves it when it finishes.
Whatever a worker that was believed dead, a lost answer or a second worker wants to do to a task that is not in it, is
not done.

`yolo:pictures` lists the annotated pictures that are kept, as `<task_id>:<bytes>` by the time of their making;
`yolo:pictures_bytes` is the sum.
"""

from collections.abc import Sequence

import redis

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

_RELEASE = """
local function release(id)
    local bytes = redis.call('hget', KEYS[1], id)
    if bytes then
        redis.call('hdel', KEYS[1], id)
        redis.call('decrby', KEYS[2], bytes)
    end
    return bytes
end
"""

# KEYS: ledger, sum, idempotency, result of the first task.
# ARGV: most tasks, most bytes, share of Redis' memory, number of tasks, (id, bytes) of each, commands.
ACCEPT = (
    _RUN
    + """
local known = redis.call('get', KEYS[3])
if known then
    local prefix = string.gsub(KEYS[4], '[^:]*$', '')
    for id in string.gmatch(known, '"task_id":"(%x+)"') do
        if redis.call('hexists', KEYS[1], id) == 1 or redis.call('exists', prefix .. id) == 1 then
            return {'known', known}
        end
    end  -- all of it has expired or was forgotten: the key is free again
end
if redis.call('hexists', KEYS[1], ARGV[5]) == 1 or redis.call('exists', KEYS[4]) == 1 then
    return {'accepted'}  -- the answer was lost, the client library asks again
end
local number, bytes = tonumber(ARGV[4]), 0
for i = 1, number do bytes = bytes + tonumber(ARGV[4 + 2 * i]) end
local tasks, sum = redis.call('hlen', KEYS[1]), tonumber(redis.call('get', KEYS[2]) or '0')
if tasks > 0 and (tasks + number > tonumber(ARGV[1]) or sum + bytes > tonumber(ARGV[2])) then
    return {'overloaded', tasks, sum}
end
local memory = redis.call('info', 'memory')
local most = tonumber(string.match(memory, 'maxmemory:(%d+)'))
if most > 0 and tonumber(string.match(memory, 'used_memory:(%d+)')) + bytes > most * tonumber(ARGV[3]) then
    return {'full', tasks, sum}
end
for i = 1, number do redis.call('hset', KEYS[1], ARGV[3 + 2 * i], ARGV[4 + 2 * i]) end
redis.call('incrby', KEYS[2], bytes)
run(5 + 2 * number)
return {'accepted'}
"""
)

# A placeholder for the id in the commands that are to be run for a task which the script itself picks.
THE_TASK = "THE_TASK"

# KEYS: ledger, queue, intermediate queue.
# ARGV: id that was moved to the intermediate queue, or '' for the next of the queue; prefixes of job and image; the
# most bytes of an image that is to come along; THE_TASK; commands.
# What is not open any more, canceled or ended by a worker that was believed dead, is dropped on the way.
CLAIM = (
    _RUN
    + """
local id = ARGV[1]
if id == '' or redis.call('lrem', KEYS[3], 1, id) == 0 then  -- not there: it was believed lost, and put back
    id = redis.call('lpop', KEYS[2])
end
while id do
    local job = redis.call('hmget', ARGV[2] .. id, 'data', 'retries_left')
    if job[1] and redis.call('hexists', KEYS[1], id) == 1 then
        for at = 6, #ARGV do ARGV[at] = string.gsub(ARGV[at], ARGV[5], id) end
        run(6)
        local image = ARGV[3] .. id
        return {id, job[1], job[2], redis.call('strlen', image) <= tonumber(ARGV[4]) and redis.call('get', image)}
    end
    redis.call('del', ARGV[2] .. id)
    id = redis.call('lpop', KEYS[2])
end
"""
)

# KEYS: ledger, sum. ARGV: id, last word of the commands that are run in any case, these, commands for an open task.
END = (
    _RUN
    + _RELEASE
    + """
run(3, tonumber(ARGV[2]))
if not release(ARGV[1]) then return 0 end
run(tonumber(ARGV[2]) + 1)
return 1
"""
)

# KEYS: RQ's registry of executions. ARGV: the execution, commands.
# A worker that was believed dead has none any more, nor has one whose answer was lost and that does it again.
GIVE_BACK = _RUN + "if redis.call('zrem', KEYS[1], ARGV[1]) == 1 then run(2) end"

# KEYS: ledger, sum, queue, result, picture, job. ARGV: id, commands.
CANCEL = (
    _RUN
    + _RELEASE
    + """
if redis.call('exists', KEYS[4]) == 1 then
    redis.call('del', KEYS[4], KEYS[5], KEYS[6])
    return 'forgotten'
end
if redis.call('hexists', KEYS[1], ARGV[1]) == 0 then return 'unknown' end
if redis.call('lrem', KEYS[3], 1, ARGV[1]) == 0 then return 'running' end
release(ARGV[1])
run(2)
return 'canceled'
"""
)

# KEYS: ledger, index of pictures, their sum.
# ARGV: id, prefix of picture keys, bytes, instant, seconds to keep, most bytes, (media type, picture) of each.
# The oldest pictures make room; a task that is not open gets none.
KEEP_PICTURES = """
local function drop(member)
    local id, bytes = string.match(member, '(.*):(%d+)')
    redis.call('zrem', KEYS[2], member)
    redis.call('decrby', KEYS[3], bytes)
    redis.call('del', ARGV[2] .. id)
end
if redis.call('hexists', KEYS[1], ARGV[1]) == 0 or tonumber(ARGV[3]) > tonumber(ARGV[6]) then return 0 end
redis.call('hset', ARGV[2] .. ARGV[1], unpack(ARGV, 7))
redis.call('expire', ARGV[2] .. ARGV[1], ARGV[5])
redis.call('zadd', KEYS[2], ARGV[4], ARGV[1] .. ':' .. ARGV[3])
redis.call('incrby', KEYS[3], ARGV[3])
for _, member in ipairs(redis.call('zrange', KEYS[2], '-inf', ARGV[4] - ARGV[5], 'byscore')) do drop(member) end
while tonumber(redis.call('get', KEYS[3])) > tonumber(ARGV[6]) do drop(redis.call('zrange', KEYS[2], 0, 0)[1]) end
return 1
"""

# KEYS: between, queue. ARGV: id. The id goes back only if nobody has begun the task in the meantime.
RESCUE = "if redis.call('lrem', KEYS[1], 1, ARGV[1]) == 1 then return redis.call('lpush', KEYS[2], ARGV[1]) end"


def words(pipe: "redis.client.Pipeline") -> Sequence[bytes | str | int | float]:
    """The commands that a pipeline has collected, as a script takes them: each after the number of its words."""
    flat: list[bytes | str | int | float] = []
    for command, _ in pipe.command_stack:
        flat.append(len(command))
        flat.extend(command)
    return flat
