"""RQ's records of a task that is accepted, begins and finishes, as our scripts write them.

RQ builds some thirty objects and sixty words for each; here the words that change are given, once. The fields are RQ's
own, without those that are empty, and tests/api/test_rq_records.py holds them to what RQ writes and reads.
"""

from datetime import UTC, datetime

from rq import Queue
from rq.utils import utcformat

from gateway import clock
from gateway.redis_names import (
    EXECUTING_KEY,
    QUEUE_KEY,
    QUEUE_NAME,
    QUEUES_KEY,
    execution_key,
    executions_key,
    job_key,
    worker_executions_key,
)

_REGISTRY_SECONDS = 60  # RQ keeps what lists executions this much longer than these

# KEYS 12 and 13: all queues, the queue. ARGV 10 to 16: prefix of jobs, instant, name of the queue, description, seconds
# that RQ would let it run, and keep its failure, how often it is tried again.
ENQUEUE = """
local function enqueue(id, data)
    redis.call('sadd', KEYS[12], KEYS[13])
    redis.call('hset', ARGV[10] .. id, 'status', 'queued', 'created_at', ARGV[11], 'enqueued_at', ARGV[11],
        'origin', ARGV[12], 'description', ARGV[13], 'timeout', ARGV[14], 'failure_ttl', ARGV[15],
        'retries_left', ARGV[16], 'retry_intervals', '[0]', 'enqueue_at_front_on_retry', 1, 'data', data)
    redis.call('rpush', KEYS[13], id)
end
"""

# KEYS 8 and 9: executions of the queue, of the worker.
# ARGV 1: prefix of jobs; 6 to 12: name of the worker, seconds until the next heartbeat, prefixes of executions and of
# their lists, id of the execution, instant in seconds and in RQ's format.
BEGIN = (
    f"local LONGER = {_REGISTRY_SECONDS}"
    """
local function begin(id)
    local execution, worker, seconds = ARGV[10], ARGV[6], tonumber(ARGV[7])
    local both, ends = id .. ':' .. execution, math.floor(ARGV[11]) + seconds
    redis.call('hset', ARGV[8] .. both, 'id', execution, 'job_id', id, 'created_at', ARGV[11],
        'last_heartbeat', ARGV[11], 'worker_name', worker)
    redis.call('expire', ARGV[8] .. both, seconds)
    redis.call('zadd', ARGV[9] .. id, ends + LONGER, execution)
    redis.call('expire', ARGV[9] .. id, seconds + LONGER)
    redis.call('zadd', KEYS[8], ends, both)
    redis.call('sadd', KEYS[9], both)
    redis.call('expire', KEYS[9], seconds + LONGER)
    redis.call('hset', ARGV[1] .. id, 'status', 'started', 'started_at', ARGV[12], 'last_heartbeat', ARGV[12],
        'worker_name', worker)
end
"""
)

# KEYS 12 to 16: execution, executions of the queue, of the worker, of the job, job.
FINISH = """
local function drop_execution(id, execution)
    local both = id .. ':' .. execution
    redis.call('del', KEYS[12])
    redis.call('zrem', KEYS[13], both)
    redis.call('srem', KEYS[14], both)
    redis.call('zrem', KEYS[15], execution)
end
"""

ENQUEUE_KEYS = QUEUES_KEY, QUEUE_KEY


def enqueue_args(description: str, failure_seconds: int, retries: int) -> tuple[str | int, ...]:
    return job_key(""), _text(clock.now()), QUEUE_NAME, description, Queue.DEFAULT_TIMEOUT, failure_seconds, retries


def begin_keys(worker_name: str) -> tuple[str, ...]:
    return EXECUTING_KEY, worker_executions_key(worker_name)


def worker_args(worker_name: str, seconds: int) -> tuple[str | int, ...]:
    """The first four for BEGIN, which stay the same."""
    return worker_name, seconds, execution_key(""), executions_key("")


def begin_args(execution_id: str) -> tuple[str | float, ...]:
    """The last three."""
    instant = clock.now()
    return execution_id, instant, _text(instant)


def finish_keys(task_id: str, execution_id: str, worker_name: str) -> tuple[str, ...]:
    own = execution_key(f"{task_id}:{execution_id}")
    return own, EXECUTING_KEY, worker_executions_key(worker_name), executions_key(task_id), job_key(task_id)


def _text(instant: float) -> str:
    return utcformat(datetime.fromtimestamp(instant, UTC))
