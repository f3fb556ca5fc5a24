"""What is kept after a task has ended, results and annotated pictures, bounded by the scripts that add to them.

`yolo:results` lists the results that are kept, as `<task_id>:<bytes>` by the time when each expires, and
`yolo:pictures` the annotated pictures by the time of their making; `yolo:results_bytes` and `yolo:pictures_bytes` are
the sums. Results of more than 10 kB are in `yolo:large_results`: whoever asks for 1,000 detections a picture does not
push out what others have.
"""

MEMORY = """
local function memory()
    local found = redis.call('info', 'memory')
    return tonumber(string.match(found, 'used_memory:(%d+)')), tonumber(string.match(found, 'maxmemory:(%d+)'))
end
"""

LARGE_BYTES = 10_000
RESULT_OVERHEAD = 300  # bytes that Redis takes around a result: its name, its place in the index

# KEYS 5 to 11: index of results, their sum, result, group, batch, index of large results, their sum.
# ARGV 1 to 5: id, prefix of results, most bytes, seconds to keep, prefix of idempotency keys.
RESULTS = (
    f"local OVERHEAD, LARGE = {RESULT_OVERHEAD}, {LARGE_BYTES}"
    """
local function place(bytes)
    if tonumber(bytes) > LARGE then return KEYS[10], KEYS[11] end
    return KEYS[5], KEYS[6]
end
local function drop(member)
    local id, bytes = string.match(member, '(.*):(%d+)')
    local index, sum = place(bytes)
    if redis.call('zrem', index, member) == 1 then redis.call('decrby', sum, bytes) end
    redis.call('del', ARGV[2] .. id)
end
local function held(sum) return tonumber(redis.call('get', sum) or '0') end
local function oldest(index) return redis.call('zrange', index, 0, 0)[1] end
local function keep()  -- the result that was just written; the oldest make room, large ones while they hold over half
    local now, bytes, most = redis.call('time'), redis.call('strlen', KEYS[7]) + OVERHEAD, tonumber(ARGV[3])
    local index, sum = place(bytes)
    local member = ARGV[1] .. ':' .. bytes
    redis.call('zadd', index, now[1] + now[2] / 1e6 + ARGV[4], member)
    redis.call('incrby', sum, bytes)
    for _, each in ipairs({KEYS[5], KEYS[10]}) do
        for _, expired in ipairs(redis.call('zrange', each, '-inf', now[1], 'byscore', 'limit', 0, 100)) do
            drop(expired)
        end
    end
    while held(KEYS[6]) + held(KEYS[11]) > most do
        local first = oldest(held(KEYS[11]) > most / 2 and KEYS[10] or KEYS[5]) or oldest(KEYS[10])
        if not first or first == member then break end
        drop(first)
    end
    if redis.call('exists', KEYS[8]) == 1 and redis.call('hincrby', KEYS[8], 'open', -1) <= 0 then
        redis.call('expire', KEYS[8], ARGV[4])
        redis.call('expire', KEYS[9], ARGV[4])
        local key = redis.call('hget', KEYS[8], 'key')
        if key then redis.call('expire', ARGV[5] .. key, ARGV[4]) end
    end
end
local function forget()
    drop(ARGV[1] .. ':' .. redis.call('strlen', KEYS[7]) + OVERHEAD)
    if redis.call('exists', KEYS[8]) == 1 and redis.call('hincrby', KEYS[8], 'kept', -1) <= 0 then
        local key = redis.call('hget', KEYS[8], 'key')
        if key then redis.call('del', ARGV[5] .. key) end
        redis.call('del', KEYS[8], KEYS[9])
    end
end
"""
)

# KEYS: ledger, index of pictures, their sum.
# ARGV: id, prefix of picture keys, bytes, instant, seconds to keep, most bytes, (media type, picture) of each.
# The oldest pictures make room; a task that is not open gets none, and nothing is kept in a Redis that is full.
KEEP_PICTURES = (
    MEMORY
    + """
local function drop(member)
    local id, bytes = string.match(member, '(.*):(%d+)')
    redis.call('zrem', KEYS[2], member)
    redis.call('decrby', KEYS[3], bytes)
    redis.call('del', ARGV[2] .. id)
end
if redis.call('hexists', KEYS[1], ARGV[1]) == 0 or tonumber(ARGV[3]) > tonumber(ARGV[6]) then return 0 end
for _, member in ipairs(redis.call('zrange', KEYS[2], '-inf', ARGV[4] - ARGV[5], 'byscore')) do drop(member) end
while tonumber(redis.call('get', KEYS[3]) or '0') + ARGV[3] > tonumber(ARGV[6]) and redis.call('zcard', KEYS[2]) > 0 do
    drop(redis.call('zrange', KEYS[2], 0, 0)[1])
end
local used, most = memory()
if most > 0 and used + ARGV[3] > most then return 0 end
redis.call('expire', ARGV[2] .. ARGV[1], ARGV[5])
redis.call('hset', ARGV[2] .. ARGV[1], unpack(ARGV, 7))
redis.call('expire', ARGV[2] .. ARGV[1], ARGV[5])
redis.call('zadd', KEYS[2], ARGV[4], ARGV[1] .. ':' .. ARGV[3])
redis.call('incrby', KEYS[3], ARGV[3])
return 1
"""
)
