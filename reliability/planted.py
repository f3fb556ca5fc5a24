"""A process of the service with something planted around it: `python -m reliability.planted AHEAD MODULE [PORTS CA]`.

AHEAD is by how many seconds the host's clock is wrong, MODULE what runs (`gateway.worker`). PORTS are two of this
machine, `RECEIVER,TARPIT`, that stand for an Internet; CA is the file of the receiver's authority.
"""

import asyncio
import datetime as datetime_module
import runpy
import ssl
import sys
import time

RECEIVER, TARPIT, SLOW = "receiver.example", "tarpit", "slow"
_ADDRESSES = "93.184.215.14", "93.184.215.15"  # public ones, of the receiver and of all tarpits
_RESOLVER_SECONDS = 20


def set_clock(ahead: float) -> None:
    """Before anything that reads the clock is imported."""
    right, real = time.time, datetime_module.datetime

    class Wrong(real):  # type: ignore[valid-type, misc]
        @classmethod
        def now(cls, tz: datetime_module.tzinfo | None = None) -> datetime_module.datetime:
            return real.fromtimestamp(right() + ahead, tz)

    time.time = lambda: right() + ahead
    datetime_module.datetime = Wrong  # type: ignore[misc]


def set_internet(receiver: int, tarpit: int, authority: str) -> None:
    """Names ending as above, and no others, lead to ports of this machine."""
    import httpcore
    import httpx

    from gateway.outbound import https

    ports = dict(zip(_ADDRESSES, (receiver, tarpit), strict=True))

    class Planted:
        async def resolve(self, host: str, port: int) -> list[str]:
            if host == RECEIVER:
                return [_ADDRESSES[0]]
            if host.startswith(TARPIT):
                return [_ADDRESSES[1]]
            await asyncio.sleep(_RESOLVER_SECONDS)
            return []

        async def connect_tcp(self, host: str, port: int, timeout: float | None) -> httpcore.AsyncNetworkStream:
            return await httpcore.AnyIOBackend().connect_tcp("127.0.0.1", ports[host], timeout)

    https.SystemNetwork = Planted  # type: ignore[assignment, misc]
    httpx.create_ssl_context = lambda **_: ssl.create_default_context(cafile=authority)


def main(ahead: str, module: str, ports: str = "", authority: str = "") -> None:
    if float(ahead):
        set_clock(float(ahead))
    if ports:
        receiver, tarpit = map(int, ports.split(","))
        set_internet(receiver, tarpit, authority)
    sys.argv[1:] = []
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
