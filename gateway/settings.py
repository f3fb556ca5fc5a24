"""Settings: one row per knob. The only reader of the environment; `redis_prefix` reads one of them before."""

import ipaddress
import os
from collections.abc import Mapping
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from gateway import redis_url
from gateway.redis_prefix import ALLOWED_PREFIX
from gateway.secret_files import SecretError, secret
from gateway.values import NotAllowed, checked, fields

_PORTS = r"^[0-9]{1,5}(,[0-9]{1,5})*$"
_SECONDS = r"^[0-9]+(\.[0-9]+)?(,[0-9]+(\.[0-9]+)?)*$"
_SECRET = r"whsec_([A-Za-z0-9+/]{4}){8,}([A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?"
_SECRETS = f"^{_SECRET}( {_SECRET})*$"
_SECRETS_IN_WORDS = "whsec_ and at least 24 bytes in base64, several such with one space between"
_PORT = "([0-9]{1,4}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5])"  # larger ones would wrap
_TRITON = rf"(dns:///[^\s,/]+:{_PORT}|(?!\w+://)[^\s,]+)"
_TRITONS = f"^{_TRITON}(,{_TRITON})*$"
_TRITONS_IN_WORDS = (
    "host:port of its gRPC endpoint, without http://, several with commas between, or dns:///name:port for a Triton "
    "at each address of a name"
)
_TRITON_HTTP = rf"^(?!\w+://)[^\s,/]+:{_PORT}$"
_TRITON_HTTP_IN_WORDS = "host:port of its HTTP endpoint, without http://"
RATE = r"[1-9][0-9]{0,8}/(?:second|minute|hour|day)"
_RATE_IN_WORDS = "requests and the time they are for, such as 600/minute (second, minute, hour or day)"
_Key = Annotated[str, Meta(pattern="^[A-Za-z0-9_-]{16,128}$", extra={"give": "16 to 128 letters, digits, _ or -"})]
# Each may be in a file instead, which NAME_FILE names. API_KEYS_FILE is a setting of its own.
IN_FILES = ("REDIS_URL", "TRITON_KEY", "TRITON_MEMORY_KEY", "WEBHOOK_SECRET")
_NEVER_SHOWN = frozenset({"webhook_secret", "api_keys", "triton_key", "triton_memory_key"})


LOOPBACK_HOSTS = frozenset({"localhost", "127.0.0.1", "::1"})


def is_loopback(host: str) -> bool:
    """Whether a server that listens on this address can be reached from this machine only."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class SettingsError(ValueError):
    """A setting has no meaning; the message names the variable and what is allowed."""


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """Every field is read from the environment variable of its name in capitals."""

    host: Annotated[str, Meta(description="address the gateway listens on")] = "127.0.0.1"
    port: Annotated[int, Meta(ge=1, le=65535, description="port the gateway listens on")] = 5000
    listen_fd: Annotated[
        int,
        Meta(ge=-1, description="inherited socket to listen on in place of HOST and PORT; -1 for none"),
    ] = -1
    redis_url: Annotated[str, Meta(description="Redis, which holds the queue, images and results")] = (
        "redis://127.0.0.1:6379/0"
    )
    redis_prefix: Annotated[
        str,
        Meta(
            pattern=ALLOWED_PREFIX,
            description="what every name in Redis begins with: one for each stack that shares a Redis",
            extra={"give": "up to 64 letters, digits, _, - or ., a different one for each stack"},
        ),
    ] = ""
    redis_replicas: Annotated[
        int, Meta(ge=0, le=10, description="replicas of Redis that must have a task before it is answered 202")
    ] = 0
    triton_url: Annotated[
        str,
        Meta(
            pattern=_TRITONS,
            description="Triton's gRPC endpoint, host:port; several with commas, dns:///name:port for all of a name",
            extra={"give": _TRITONS_IN_WORDS},
        ),
    ] = "127.0.0.1:8001"
    triton_http_url: Annotated[
        Annotated[str, Meta(pattern=_TRITON_HTTP, extra={"give": _TRITON_HTTP_IN_WORDS})] | None,
        Meta(description="HTTP endpoint of that Triton, host:port; images in shared memory are then asked for there"),
    ] = None
    model: Annotated[str, Meta(min_length=1, description="model that answers when a request names none")] = "yolov5n"
    confidence: Annotated[float, Meta(ge=0, le=1, description="minimum detection score")] = 0.25
    iou: Annotated[
        float, Meta(ge=0, le=1, description="NMS removes the weaker of two boxes that overlap more than this")
    ] = 0.45
    max_detections: Annotated[int, Meta(ge=1, le=1000, description="maximum detections per image")] = 300
    max_image_bytes: Annotated[int, Meta(ge=1, description="maximum size of one image, bytes")] = 10_000_000
    max_image_pixels: Annotated[int, Meta(ge=1, description="maximum pixels of one image")] = 50_000_000
    max_image_side: Annotated[int, Meta(ge=1, description="maximum length of an image's longer side, pixels")] = 16_384
    max_images: Annotated[int, Meta(ge=1, le=1000, description="maximum images in one request")] = 16
    max_request_bytes: Annotated[
        int, Meta(ge=1, description="maximum size of a request with several images, bytes")
    ] = 50_000_000
    vision_wait: Annotated[
        float, Meta(gt=0, le=60, description="how long camera software waits for its answer, seconds")
    ] = 30.0
    max_uploading_bytes: Annotated[
        int, Meta(ge=1, description="maximum bytes of uploads that one gateway receives at a time")
    ] = 100_000_000
    max_uploading_bytes_per_client: Annotated[
        int, Meta(ge=1, description="maximum of them per key or address; a single upload may have more")
    ] = 60_000_000
    max_queued_tasks: Annotated[int, Meta(ge=1, description="maximum tasks that are accepted and not finished")] = 5_000
    max_queued_bytes: Annotated[
        int, Meta(ge=1, description="maximum bytes those tasks take in Redis, with room for each one's result")
    ] = 500_000_000
    max_queued_tasks_per_client: Annotated[
        int, Meta(ge=1, description="maximum of those tasks from one key, or from one address without keys")
    ] = 2_500
    max_queued_bytes_per_client: Annotated[
        int, Meta(ge=1, description="maximum of those bytes for one key, or for one address without keys")
    ] = 250_000_000
    image_ttl: Annotated[int, Meta(ge=60, description="how long an image waits for a worker, seconds")] = 86_400
    result_ttl: Annotated[int, Meta(ge=1, description="how long a result can be read, seconds")] = 3_600
    max_results_bytes: Annotated[
        int, Meta(ge=1_000_000, description="maximum bytes of results kept; the oldest are dropped")
    ] = 200_000_000
    max_pictures_bytes: Annotated[
        int, Meta(ge=0, description="maximum bytes of annotated pictures kept; the oldest are dropped")
    ] = 200_000_000
    trace_ttl: Annotated[
        int,
        Meta(ge=0, description="how long deleted data may stay in Redis' append-only file, seconds; 0: up to Redis"),
    ] = 900
    worker_tasks: Annotated[
        int,
        Meta(ge=1, le=64, description="tasks that one worker process runs at a time, besides two with large pictures"),
    ] = 2
    max_decoding_bytes: Annotated[
        int, Meta(ge=1, description="maximum bytes one worker process decodes images into; a larger image goes alone")
    ] = 600_000_000
    max_high_in_a_row: Annotated[
        int, Meta(ge=1, description="maximum tasks of priority=high begun in a row while others wait")
    ] = 4
    worker_ttl: Annotated[int, Meta(ge=2, description="seconds without a heartbeat before a worker counts as dead")] = (
        15
    )
    task_timeout: Annotated[int, Meta(ge=5, description="maximum time that one task may run, seconds")] = 180
    task_retries: Annotated[int, Meta(ge=1, le=10, description="retries after a worker dies")] = 2
    triton_timeout: Annotated[float, Meta(gt=0, description="maximum wait for one inference, seconds")] = 30.0
    triton_patience: Annotated[float, Meta(ge=0, description="how long a task waits while Triton is away, seconds")] = (
        600.0
    )
    fetch_urls: Annotated[bool, Meta(description="whether images may be given as URLs")] = False
    fetch_timeout: Annotated[float, Meta(gt=0, description="maximum time to fetch an image from a URL, seconds")] = 10.0
    callbacks: Annotated[bool, Meta(description="whether a task may have a callback_url; needs WEBHOOK_SECRET")] = False
    max_webhooks: Annotated[
        int, Meta(ge=1, description="maximum deliveries that wait; beyond it nothing with a callback_url is accepted")
    ] = 10_000
    max_webhooks_per_client: Annotated[
        int, Meta(ge=1, description="maximum of them, open tasks with a callback_url too, per key or address")
    ] = 5_000
    max_webhooks_per_host: Annotated[
        int, Meta(ge=1, le=256, description="deliveries to one host at a time, of each deliverer")
    ] = 16
    webhook_secret: Annotated[
        Annotated[str, Meta(pattern=_SECRETS, extra={"give": _SECRETS_IN_WORDS})] | None,
        Meta(description="signs webhooks: whsec_ and at least 24 bytes in base64; separate several with spaces"),
    ] = None
    webhook_timeout: Annotated[float, Meta(gt=0, description="maximum time for one delivery of a webhook, seconds")] = (
        10.0
    )
    webhook_delays: Annotated[
        str,
        Meta(
            pattern=_SECONDS,
            description="pauses before the retries of a webhook, seconds",
            extra={"give": "seconds with commas between, such as 5,30,120"},
        ),
    ] = "5,30,120,600,3600"
    outbound_ports: Annotated[
        str,
        Meta(
            pattern=_PORTS,
            description="ports allowed in the URL of an image or a callback",
            extra={"give": "ports with commas between, such as 443,8443"},
        ),
    ] = "443"
    page: Annotated[bool, Meta(description="whether `/` shows browsers a page to try the models on")] = True
    metrics_host: Annotated[str, Meta(description="address the metrics listen on")] = "127.0.0.1"
    metrics_port: Annotated[int, Meta(ge=0, le=65535, description="port of the gateway's metrics, 0 for none")] = 9464
    worker_metrics_port: Annotated[
        int, Meta(ge=0, le=65535, description="port of the workers' metrics, 0 for none")
    ] = 9465
    prometheus_multiproc_dir: Annotated[
        str, Meta(description="folder through which the worker processes of a host share that port")
    ] = ""
    log_format: Annotated[
        Literal["json", "text"], Meta(description="json: one object per line; text: lines for people")
    ] = "text"
    api_keys_file: Annotated[
        str | None, Meta(description="file of the accepted API keys; without keys, none is required")
    ] = None
    api_keys: Annotated[str | None, Meta(description="the same keys, separated by spaces")] = None
    rate_limit: Annotated[
        Annotated[str, Meta(pattern=f"^{RATE}$", extra={"give": _RATE_IN_WORDS})] | None,
        Meta(description="requests allowed per key, or per address without keys, such as 600/minute"),
    ] = None
    published_on: Annotated[
        str | None, Meta(description="in a container: the address the gateway's port is published on")
    ] = None
    allow_open: Annotated[bool, Meta(description="whether to accept other machines without keys")] = False
    trusted_hosts: Annotated[
        str | None,
        Meta(
            description="host names this service serves (*.example.com: subdomains); default localhost, or any if open"
        ),
    ] = None
    trusted_proxies: Annotated[
        str | None, Meta(description="addresses of reverse proxies whose X-Forwarded-For is trusted")
    ] = None
    cors_origins: Annotated[
        str | None, Meta(description="origins of web pages that may use this service, * for all")
    ] = None
    max_connections: Annotated[int, Meta(ge=1, description="maximum connections of one gateway")] = 5_000
    max_connections_per_address: Annotated[
        int, Meta(ge=1, description="maximum of them per address; a trusted proxy has all")
    ] = 2_000
    max_waiting: Annotated[int, Meta(ge=1, description="maximum requests that wait for a result at a time")] = 4_000
    max_waiting_per_client: Annotated[int, Meta(ge=1, description="maximum of them per key or address")] = 1_000
    max_streams: Annotated[int, Meta(ge=1, description="maximum event streams of one gateway")] = 1_000
    max_streams_per_client: Annotated[int, Meta(ge=1, description="maximum of them per key or address")] = 200
    max_untaken_bytes: Annotated[
        int, Meta(ge=1, description="maximum bytes of answers that clients of one gateway do not take")
    ] = 100_000_000
    max_untaken_bytes_per_client: Annotated[
        int, Meta(ge=1, description="those of a key or address from which on it gets no more pictures")
    ] = 30_000_000
    header_timeout: Annotated[float, Meta(gt=0, description="maximum wait for a request's headers, seconds")] = 10.0
    body_timeout: Annotated[
        float,
        Meta(gt=0, description="how long a body may hardly come, or the client not take the answer, seconds"),
    ] = 30.0
    min_upload_rate: Annotated[
        int, Meta(ge=1, description="minimum rate of a body over each BODY_TIMEOUT, bytes per second")
    ] = 10_000
    drain_seconds: Annotated[
        float,
        Meta(ge=0, description="how long a stopping gateway goes on as ever while load balancers take it out, seconds"),
    ] = 2.0
    stop_timeout: Annotated[float, Meta(ge=1, description="maximum time the gateway takes to stop, seconds")] = 9.0
    triton_key: Annotated[_Key | None, Meta(description="key to Triton's model control, if it requires one")] = None
    triton_memory_key: Annotated[
        _Key | None,
        Meta(description="key to the shared memory of a Triton on the same host; without it images are sent as bytes"),
    ] = None
    log_level: Annotated[
        Literal["debug", "info", "warning", "error"], Meta(description="lowest level that is logged")
    ] = "info"

    @property
    def url_ports(self) -> frozenset[int]:
        return frozenset(int(port) for port in self.outbound_ports.split(","))

    @property
    def hosts(self) -> frozenset[str]:
        """Host names that requests may ask for; `*` means all."""
        if self.trusted_hosts:
            return frozenset(name.strip().lower() for name in self.trusted_hosts.split(","))
        return LOOPBACK_HOSTS | {self.reachable_on} if is_loopback(self.reachable_on) else frozenset({"*"})

    @property
    def reachable_on(self) -> str:
        """The address through which clients come."""
        return self.published_on or self.host

    @property
    def origins(self) -> frozenset[str]:
        return frozenset(each.strip() for each in (self.cors_origins or "").split(",") if each.strip())

    @property
    def webhook_pauses(self) -> tuple[float, ...]:
        return tuple(float(seconds) for seconds in self.webhook_delays.split(","))


def load(environment: Mapping[str, str] | None = None) -> Settings:
    """Read the settings from `environment` (the process's own when None). Empty values count as not given.

    A secret may be in a file that NAME_FILE names. Raises SettingsError.
    """
    source = with_files(os.environ if environment is None else environment)
    given = {name: source[name.upper()] for name in Settings.__struct_fields__ if source.get(name.upper())}
    try:
        settings = checked(given, Settings)
    except NotAllowed as error:
        value = "..." if error.name in _NEVER_SHOWN else given[error.name]
        raise SettingsError(f"{error.name.upper()}={value}: give {error.expected}") from error
    _check_redis(settings.redis_url)
    if settings.trusted_proxies:
        _check_proxies(settings.trusted_proxies)
    _check_drain(settings.drain_seconds, settings.stop_timeout)
    return settings


def check_callbacks(settings: Settings) -> None:
    """For who starts or is the webhook sender: only that has the secret, the gateway goes by CALLBACKS.

    Raises SettingsError for callbacks that nobody could sign.
    """
    if settings.callbacks and settings.webhook_secret is None:
        raise SettingsError("CALLBACKS=true: callbacks are signed, set WEBHOOK_SECRET too")


def with_files(environment: Mapping[str, str]) -> Mapping[str, str]:
    """The environment with what is in the files that NAME_FILE names, as Docker gives secrets. Raises SettingsError."""
    try:
        read = {name: secret(name, environment) for name in IN_FILES if environment.get(f"{name}_FILE")}
    except SecretError as error:
        raise SettingsError(str(error)) from error
    return {name: value for name, value in environment.items() if name.removesuffix("_FILE") not in read} | read


def _check_redis(url: str) -> None:
    """Raises SettingsError for a URL that the client cannot use, without its password."""
    try:
        redis_url.check(url)
    except redis_url.BadRedisURL as error:
        shown = redis_url.without_password(url)
        reason = str(error).replace(url, shown)
        forms = "redis://host:6379/0, rediss://, unix:// or redis+sentinel://"
        raise SettingsError(f"REDIS_URL={shown}: give {forms} ({reason})") from error


def _check_proxies(given: str) -> None:
    for each in given.split(","):
        try:
            if each.strip() != "*":
                ipaddress.ip_network(each.strip(), strict=False)
        except ValueError as error:
            raise SettingsError(
                f"TRUSTED_PROXIES={given}: give addresses or networks with commas between, such as 10.0.0.5, or *"
            ) from error


def _check_drain(drain: float, stop: float) -> None:
    if drain > stop - 1:
        raise SettingsError(
            f"DRAIN_SECONDS={drain:g}: requests need a second to end within STOP_TIMEOUT={stop:g}; "
            f"give at most {stop - 1:g}, or a longer STOP_TIMEOUT"
        )


def rows() -> list[tuple[str, Any, str]]:
    """The settings table: (environment variable, default, description)."""
    table = []
    for field in fields(Settings).values():
        kind = field.type
        assert isinstance(kind, msgspec.inspect.Metadata)
        described = (kind.extra_json_schema or {}).get("description", "")
        table.append((field.name.upper(), field.default, described))
    return table
