"""How Triton is spoken to: channel arguments, what an outage looks like, the headers of its keys."""

# Messages of any size; never through a proxy of the environment, which would even be asked for 127.0.0.1. Where a name
# has several addresses, each is a Triton, and all take turns; by itself gRPC stays with one. The name is resolved again
# when a connection ends, which Triton's --grpc-max-connection-age brings about.
CHANNEL_ARGUMENTS = [
    ("grpc.lb_policy_name", "round_robin"),
    ("grpc.dns_min_time_between_resolutions_ms", 5_000),
    ("grpc.max_reconnect_backoff_ms", 5_000),
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    ("grpc.enable_http_proxy", 0),
]

# Of one Triton among several: another takes what it does not answer, so one that hangs is not waited for until the
# time of a call is over. gRPC sends no more than two pings without data, and Triton allows as many. The second time is
# that of pings that gRPC sends by itself, while which it sends no other: without it a minute.
POOLED_ARGUMENTS = [
    *CHANNEL_ARGUMENTS,
    ("grpc.keepalive_time_ms", 3_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.http2.ping_timeout_ms", 5_000),
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.max_reconnect_backoff_ms", 2_000),
]

# What a call ends with, by `InferenceServerException.status`, when Triton is away.
OUTAGE = frozenset({"StatusCode.UNAVAILABLE", "StatusCode.DEADLINE_EXCEEDED", "StatusCode.CANCELLED"})

RESTRICTED = "protocol is restricted"  # in what Triton says to a request without the right key


def control_headers(key: str | None) -> dict[str, str]:
    """What a request to Triton's model control must carry where that is closed (`local.triton.restrictions`)."""
    return {"triton-grpc-protocol-yolo-key": key} if key else {}


def memory_headers(key: str | None) -> dict[str, str]:
    """The same for Triton's shared memory."""
    return {"triton-grpc-protocol-yolo-memory": key} if key else {}
