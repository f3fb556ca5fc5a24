"""The Redis + RQ adapter: accept a task, hand its image to the worker, keep its end.

Keys of one task, beside RQ's own job: `yolo:image:<task_id>` the encoded image, `yolo:result:<task_id>` the finished
TaskView as JSON. A finished task is also published on the channel `yolo:finished`.
"""

import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager

import msgspec
import redis
from rq import Queue, Retry
from rq.job import Job
from rq.serializers import JSONSerializer

from gateway.detections import Problem, TaskView
from gateway.errors import GatewayError, ServiceUnavailable
from gateway.settings import Settings

QUEUE_NAME = "predict"
JOB_FUNCTION = "gateway.jobs.predict"
FINISHED_CHANNEL = "yolo:finished"


def image_key(task_id: str) -> str:
    return f"yolo:image:{task_id}"


def result_key(task_id: str) -> str:
    return f"yolo:result:{task_id}"


def job_key(task_id: str) -> str:
    return Job.key_for(task_id)


@contextmanager
def redis_errors() -> Iterator[None]:
    """Translate what redis-py raises when the server is away, restarting, full or too slow."""
    try:
        yield
    except redis.RedisError as error:
        raise ServiceUnavailable("the queue cannot be reached at the moment; try again in a few seconds") from error


def failure(task_id: str, error: GatewayError) -> TaskView:
    problem = Problem(title=error.title, status=error.status, detail=error.detail, code=error.code)
    return TaskView(task_id, "FAILURE", result=error.detail, error=problem)


class TaskQueue:
    """Blocking calls, thread-safe; one per process. `submit` is the gateway's, the rest the worker's."""

    def __init__(self, connection: "redis.Redis", settings: Settings) -> None:
        self._redis = connection
        self._settings = settings
        self.rq = Queue(QUEUE_NAME, connection=connection, serializer=JSONSerializer)

    def submit(self, image: bytes, model: str) -> str:
        """Accept one encoded image for `model`; returns the task id. Image and job are written as one.

        Raises ServiceUnavailable; nothing was accepted then, as far as this side can know.
        """
        settings, task_id = self._settings, uuid.uuid4().hex
        with redis_errors(), self._redis.pipeline() as pipe:
            self.rq.enqueue_call(
                JOB_FUNCTION,
                kwargs={"task_id": task_id, "model": model, "accepted_at": time.time()},
                job_id=task_id,
                timeout=settings.task_timeout,
                result_ttl=0,
                failure_ttl=settings.result_ttl,
                description=JOB_FUNCTION,
                retry=Retry(max=settings.task_retries),
                pipeline=pipe,
            )
            pipe.set(image_key(task_id), image, ex=settings.image_ttl)
            pipe.execute()
        return task_id

    def image(self, task_id: str) -> bytes | None:
        """The encoded image of a task, None when it has expired or the task has ended."""
        data = self._redis.get(image_key(task_id))
        assert data is None or isinstance(data, bytes)
        return data

    def has_ended(self, task_id: str) -> bool:
        return bool(self._redis.exists(result_key(task_id)))

    def finish(self, view: TaskView) -> None:
        """Keep the end of a task, drop its image, wake whoever waits for it."""
        with self._redis.pipeline() as pipe:
            pipe.set(result_key(view.task_id), msgspec.json.encode(view), ex=self._settings.result_ttl)
            pipe.delete(image_key(view.task_id))
            pipe.publish(FINISHED_CHANNEL, view.task_id)
            pipe.execute()
