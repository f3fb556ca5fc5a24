"""Every name that this service has in Redis; docs/architecture.md says what each holds."""

from rq.executions import WORKER_EXECUTIONS_KEY_TEMPLATE, ExecutionRegistry
from rq.intermediate_queue import IntermediateQueue
from rq.job import Job
from rq.queue import Queue
from rq.registry import StartedJobRegistry

QUEUE_NAME = "predict"
QUEUE_KEY = f"rq:queue:{QUEUE_NAME}"
INTERMEDIATE_KEY = IntermediateQueue.get_intermediate_queue_key(QUEUE_KEY)
QUEUES_KEY = Queue.redis_queues_keys
EXECUTING_KEY = StartedJobRegistry.key_template.format(QUEUE_NAME)
EVENTS_CHANNEL = "yolo:events"
REPLICATED_CHANNEL = "yolo:replicated"

# The ledger of open tasks: bytes that each may take, their sum; how much of it is kept for its end, and their sum.
OPEN_KEY, OPEN_BYTES_KEY = "yolo:open", "yolo:open_bytes"
RESERVES_KEY, RESERVED_KEY = "yolo:reserves", "yolo:reserved_bytes"
LEDGER = (OPEN_KEY, OPEN_BYTES_KEY, RESERVES_KEY, RESERVED_KEY)
RESULTS_KEY, RESULTS_BYTES_KEY = "yolo:results", "yolo:results_bytes"
LARGE_RESULTS_KEY, LARGE_RESULTS_BYTES_KEY = "yolo:large_results", "yolo:large_results_bytes"
PICTURES_KEY, PICTURES_BYTES_KEY = "yolo:pictures", "yolo:pictures_bytes"
HIGH_KEY, HIGH_RUN_KEY = "yolo:high", "yolo:high_run"
# The clients with waiting tasks, in turn; whose turn each waiting task waits for.
TURNS = ("yolo:turns", "yolo:turn_of")
LEADER_KEY, BETWEEN_KEY, REWRITTEN_KEY = "yolo:maintenance", "yolo:between", "yolo:rewritten"
WEBHOOKS_KEY = "yolo:webhooks"
# The first line of a script whose work must go on in a Redis that is full, which takes what follows a command that
# frees. No key has such a name.
FREEING = "redis.call('del', KEYS[1] .. ':')\n"
LIMIT_PREFIX = "yolo:limit"


def image_key(task_id: str) -> str:
    return f"yolo:image:{task_id}"


def result_key(task_id: str) -> str:
    return f"yolo:result:{task_id}"


def picture_key(task_id: str) -> str:
    return f"yolo:picture:{task_id}"


def batch_key(batch_id: str) -> str:
    return f"yolo:batch:{batch_id}"


def group_key(identity: str) -> str:
    """Of a batch, or of a single task with an Idempotency-Key."""
    return f"yolo:group:{identity}"


def idempotency_key(digest: str) -> str:
    return f"yolo:idempotency:{digest}"


def client_key(client: str) -> str:
    return f"yolo:client:{client}"


def waiting_key(client: str) -> str:
    """The tasks of a client that wait for its turn."""
    return f"yolo:waiting:{client}"


def callbacks_key(client: str) -> str:
    """The tasks of a client with a callback_url that have not ended, or whose delivery waits, as far as it is known."""
    return f"yolo:callbacks:{client}"


def rate_key(bucket: int) -> str:
    return f"yolo:rate:{bucket}"


def webhook_key(task_id: str) -> str:
    return f"yolo:webhook:{task_id}"


def job_key(task_id: str) -> str:
    return Job.key_for(task_id)


def execution_key(task_and_execution: str) -> str:
    return f"rq:execution:{task_and_execution}"


def executions_key(task_id: str) -> str:
    return ExecutionRegistry.key_template.format(task_id)


def worker_executions_key(worker_name: str) -> str:
    return WORKER_EXECUTIONS_KEY_TEMPLATE.format(worker_name)
