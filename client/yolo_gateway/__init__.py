"""The Python client of the YOLOv5 Triton gateway: `Client`, and `AsyncClient` for asyncio."""

from yolo_gateway import errors
from yolo_gateway.aio import AsyncClient, AsyncTask
from yolo_gateway.calls import Models
from yolo_gateway.client import Client, Task
from yolo_gateway.errors import (
    InvalidInput,
    NotReached,
    Refused,
    ServiceError,
    StrangeAnswer,
    TaskFailed,
    Unfinished,
    YoloGatewayError,
)
from yolo_gateway.prediction import Item, Prediction
from yolo_gateway.schema import Box, Detection, ImageSize, ModelView, ServedModel, TaskView

__all__ = [
    "AsyncClient",
    "AsyncTask",
    "Box",
    "Client",
    "Detection",
    "ImageSize",
    "InvalidInput",
    "Item",
    "ModelView",
    "Models",
    "NotReached",
    "Prediction",
    "Refused",
    "ServedModel",
    "ServiceError",
    "StrangeAnswer",
    "Task",
    "TaskFailed",
    "TaskView",
    "Unfinished",
    "YoloGatewayError",
    "errors",
]
