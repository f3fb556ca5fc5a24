"""Every name that this service has in Redis, after REDIS_PREFIX; docs/architecture.md says what each holds."""

from rq.defaults import RQ_KEY_PREFIX
from rq.executions import WORKER_EXECUTIONS_KEY_TEMPLATE, ExecutionRegistry
from rq.intermediate_queue import IntermediateQueue
from rq.job import Job
from rq.queue import Queue
from rq.registry import StartedJobRegistry

from gateway.redis_prefix import PREFIX

_OURS = f"{PREFIX}yolo"
QUEUE_NAME = "predict"
QUEUE_KEY = f"{Queue.redis_queue_namespace_prefix}{QUEUE_NAME}"
INTERMEDIATE_KEY = IntermediateQueue.get_intermediate_queue_key(QUEUE_KEY)
QUEUES_KEY = Queue.redis_queues_keys
EXECUTING_KEY = StartedJobRegistry.key_template.format(QUEUE_NAME)
EVENTS_CHANNEL = f"{_OURS}:events"
REPLICATED_CHANNEL = f"{_OURS}:replicated"

# The ledger of open tasks: bytes that each may take, their sum; how much of it is kept for its end, and their sum.
OPEN_KEY, OPEN_BYTES_KEY = f"{_OURS}:open", f"{_OURS}:open_bytes"
RESERVES_KEY, RESERVED_KEY = f"{_OURS}:reserves", f"{_OURS}:reserved_bytes"
LEDGER = (OPEN_KEY, OPEN_BYTES_KEY, RESERVES_KEY, RESERVED_KEY)
RESULTS_KEY, RESULTS_BYTES_KEY = f"{_OURS}:results", f"{_OURS}:results_bytes"
LARGE_RESULTS_KEY, LARGE_RESULTS_BYTES_KEY = f"{_OURS}:large_results", f"{_OURS}:large_results_bytes"
PICTURES_KEY, PICTURES_BYTES_KEY = f"{_OURS}:pictures", f"{_OURS}:pictures_bytes"
HIGH_KEY, HIGH_RUN_KEY = f"{_OURS}:high", f"{_OURS}:high_run"
# The clients with waiting tasks, in turn; whose turn each waiting task waits for.
TURNS = (f"{_OURS}:turns", f"{_OURS}:turn_of")
LEADER_KEY, BETWEEN_KEY, REWRITTEN_KEY = f"{_OURS}:maintenance", f"{_OURS}:between", f"{_OURS}:rewritten"
WEBHOOKS_KEY = f"{_OURS}:webhooks"
# The first line of a script whose work must go on in a Redis that is full, which takes what follows a command that
# frees. No key has such a name.
FREEING = "redis.call('del', KEYS[1] .. ':')\n"
LIMIT_PREFIX = f"{_OURS}:limit"


def image_key(task_id: str) -> str:
    return f"{_OURS}:image:{task_id}"


def result_key(task_id: str) -> str:
    return f"{_OURS}:result:{task_id}"


def picture_key(task_id: str) -> str:
    return f"{_OURS}:picture:{task_id}"


def batch_key(batch_id: str) -> str:
    return f"{_OURS}:batch:{batch_id}"


def group_key(identity: str) -> str:
    """Of a batch, or of a single task with an Idempotency-Key."""
    return f"{_OURS}:group:{identity}"


def idempotency_key(digest: str) -> str:
    return f"{_OURS}:idempotency:{digest}"


def client_key(client: str) -> str:
    return f"{_OURS}:client:{client}"


def waiting_key(client: str) -> str:
    """The tasks of a client that wait for its turn."""
    return f"{_OURS}:waiting:{client}"


def callbacks_key(client: str) -> str:
    """The tasks of a client with a callback_url that have not ended, or whose delivery waits, as far as it is known."""
    return f"{_OURS}:callbacks:{client}"


def rate_key(bucket: int) -> str:
    return f"{_OURS}:rate:{bucket}"


def webhook_key(task_id: str) -> str:
    return f"{_OURS}:webhook:{task_id}"


def job_key(task_id: str) -> str:
    return Job.key_for(task_id)


def execution_key(task_and_execution: str) -> str:
    return f"{RQ_KEY_PREFIX}:execution:{task_and_execution}"


def executions_key(task_id: str) -> str:
    return ExecutionRegistry.key_template.format(task_id)


def worker_executions_key(worker_name: str) -> str:
    return WORKER_EXECUTIONS_KEY_TEMPLATE.format(worker_name)
