"""One connection to Redis for all requests of an event loop: what they ask is sent at once, answers come in that order.

redis-py makes the connection, with TLS, password and Sentinels, and hands its socket over. Its client would take a
connection out of a pool for each command, and wait for the answer before the next one is sent.
"""

import asyncio
import contextlib
import hashlib
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import hiredis
import redis
import redis.asyncio as aioredis
from redis.asyncio.connection import AbstractConnection

Word = str | bytes | int | float
Command = tuple[Word, ...]
_NOTHING = object()
_ENDS = "this process ends"
_LARGE_BYTES = 4_000
_LATE_SECONDS = 0.1  # the loop itself may have been late: what has come meanwhile is read first


class _Asked:
    """Commands that were sent together, whose answers have not all come."""

    __slots__ = ("answers", "due", "future", "number")

    def __init__(self, number: int, due: float, future: "asyncio.Future[list[Any]]") -> None:
        self.number, self.due, self.future = number, due, future
        self.answers: list[Any] = []


class Link(asyncio.Protocol):
    """A connection that redis-py has made. Whoever asked and is cancelled leaves its place: its answer is dropped.

    `pushed` gets the messages of a subscribed connection. An answer that does not come within `seconds` ends the
    connection, and all that was asked with it. After an error which says that this Redis cannot be used only what was
    asked already is answered.
    """

    def __init__(
        self, connection: AbstractConnection, seconds: float, pushed: Callable[[list[Any]], None] | None = None
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._connection, self._seconds, self._pushed = connection, seconds, pushed
        self._asked: deque[_Asked] = deque()
        self._clock: asyncio.TimerHandle | None = None
        self._late: _Asked | None = None
        self._room: asyncio.Future[None] | None = None  # while the socket takes no more
        self.lost: redis.RedisError | None = None  # then nothing more can be asked
        self.ended: asyncio.Future[None] = self._loop.create_future()
        self._replies = hiredis.Reader(
            protocolError=redis.InvalidResponse,
            replyError=connection._parser.parse_error,
            notEnoughData=_NOTHING,
        )
        reader, writer = connection._reader, connection._writer
        assert reader is not None and writer is not None
        self._transport: Any = writer.transport
        self._transport.set_protocol(self)
        if read := bytes(reader._buffer):  # type: ignore[attr-defined]
            self.data_received(read)
        if reader.at_eof() or self._transport.is_closing():
            self.lose(redis.ConnectionError("Redis has closed the connection"))

    async def ask(self, packed: list[bytes], number: int = 1) -> list[Any]:
        """The answers to `number` commands, errors among them. Raises redis.ConnectionError, redis.TimeoutError."""
        while self._room is not None and self.lost is None:
            await asyncio.shield(self._room)
        if self.lost is not None:
            raise _again(self.lost)
        due = self._loop.time() + self._seconds
        asked = _Asked(number, due, self._loop.create_future())
        self._asked.append(asked)
        if self._clock is None:
            self._clock = self._loop.call_at(due, self._check)
        self._transport.writelines(packed)
        return await asked.future

    def send(self, packed: list[bytes]) -> None:
        """What has no answer."""
        self._transport.writelines(packed)

    def data_received(self, data: bytes) -> None:
        self._replies.feed(data)
        try:
            while (reply := self._replies.gets()) is not _NOTHING:
                self._take(reply)
        except redis.InvalidResponse as error:
            self.lose(redis.ConnectionError(f"Redis answers something else than its protocol: {error}"))

    def _take(self, reply: Any) -> None:
        if type(reply) is hiredis.PushNotification or self._is_message(reply):
            if self._pushed is not None:
                self._pushed(reply)
        elif self._asked:
            asked = self._asked[0]
            asked.answers.append(reply)
            if isinstance(reply, redis.ConnectionError):  # a replica now, or still loading
                self.lost = reply
            if len(asked.answers) == asked.number:
                self._asked.popleft()
                if not asked.future.done():
                    asked.future.set_result(asked.answers)
                if self.lost is not None and not self._asked:
                    self.lose(self.lost)
        elif not self.ended.done():
            self.lose(redis.ConnectionError("Redis answers what was not asked"))

    def _is_message(self, reply: Any) -> bool:
        """In RESP2, which a URL may ask for, messages are answers like others; of a subscriber only PONG is one."""
        return self._pushed is not None and type(reply) is list and bool(reply) and reply[0] != b"pong"

    def pause_writing(self) -> None:
        self._room = self._loop.create_future()

    def resume_writing(self) -> None:
        if self._room is not None:
            self._room.set_result(None)
            self._room = None

    def connection_lost(self, exc: Exception | None) -> None:
        self.lose(redis.ConnectionError(f"the connection to Redis was lost: {exc or 'it was closed'}"))

    def lose(self, error: redis.RedisError) -> None:
        """End the connection and, with this error, all that was asked."""
        if self.ended.done():
            return
        self.lost = error
        self.ended.set_result(None)
        if self._clock is not None:
            self._clock.cancel()
        self._transport.abort()
        self._connection._close()  # type: ignore[no-untyped-call]
        self.resume_writing()
        while self._asked:
            future = self._asked.popleft().future
            if not future.done():
                future.set_exception(_again(error))

    def _check(self) -> None:
        """Answers come in order, so one timer is enough for all: that of the oldest."""
        self._clock = None
        if not self._asked:
            return
        oldest, now = self._asked[0], self._loop.time()
        if oldest.due > now:
            self._clock = self._loop.call_at(oldest.due, self._check)
        elif self._late is not oldest:
            self._late = oldest
            self._clock = self._loop.call_later(_LATE_SECONDS, self._check)
        else:
            self.lose(redis.TimeoutError(f"Redis has not answered within {self._seconds:g} s"))


def _again(error: redis.RedisError) -> redis.RedisError:
    """One for each who asked: raised, an error grows by its traceback."""
    return type(error)(*error.args)


class PipelinedRedis:
    """What many tasks ask of Redis at the same time, over one connection that is made when it is needed, and anew.

    Takes the connections of `client`, whose time-out counts for each answer. What a lost connection may have swallowed
    is asked once more: it must be such that asking twice does no harm.
    """

    def __init__(self, client: "aioredis.Redis") -> None:
        self._pool = client.connection_pool
        self._seconds: float = self._pool.connection_kwargs.get("socket_timeout") or 5
        self._link: Link | None = None
        self._connecting: asyncio.Task[Link] | None = None
        self._closed = False

    async def run(self, *command: Word) -> Any:
        """The answer to a command. Raises redis.RedisError."""
        (answer,) = await self._ask(packed(command), 1)
        return answer

    async def run_all(self, *commands: Command) -> list[Any]:
        """The answers to commands that are sent together; no transaction. Raises redis.RedisError."""
        return await self._ask([part for each in commands for part in packed(each)], len(commands))

    def register_script(self, text: str) -> "Script":
        return Script(self, text)

    async def subscribe(self, pushed: Callable[[list[Any]], None], channel: str, check_seconds: float) -> None:
        """Give `pushed` what comes on a channel, over a connection of its own, until that is lost.

        A message is what Redis sends: its kind, the channel, and the data; the first is of the kind `subscribe`. While
        nothing comes, Redis is asked every `check_seconds` whether it is there. Raises redis.RedisError.
        """
        link = await self._connect(pushed)
        try:
            link.send(packed(("SUBSCRIBE", channel)))
            while link.lost is None:
                await asyncio.wait([link.ended], timeout=check_seconds)
                if link.lost is None:
                    await link.ask(packed(("PING",)))
            raise _again(link.lost)
        finally:
            link.lose(redis.ConnectionError("the subscription has ended"))

    async def aclose(self) -> None:
        self._closed = True
        while (task := self._connecting) is not None and not task.done():
            task.cancel()  # redis-py loses a cancellation that comes while it connects
            await asyncio.wait([task], timeout=0.2)
        if self._link is not None:
            self._link.lose(redis.ConnectionError(_ENDS))

    async def _ask(self, packed: list[bytes], number: int) -> list[Any]:
        try:
            return _checked(await (await self._linked()).ask(packed, number))
        except redis.ConnectionError:  # a restart of Redis cuts connections
            return _checked(await (await self._linked()).ask(packed, number))

    async def _linked(self) -> Link:
        link = self._link
        if link is not None and link.lost is None:
            return link
        if self._connecting is None or self._connecting.done():
            self._connecting = asyncio.create_task(self._relink())
            self._connecting.add_done_callback(_seen)
        connecting = self._connecting  # another request may begin the next try before this one goes on
        done, _ = await asyncio.wait([connecting], timeout=self._seconds)
        if not done:
            raise redis.TimeoutError(f"no connection to Redis within {self._seconds:g} s")
        if connecting.cancelled():
            raise redis.ConnectionError(_ENDS)
        try:
            return connecting.result()
        except redis.RedisError as error:
            raise _again(error) from error

    async def _relink(self) -> Link:
        self._link = await self._connect()
        return self._link

    async def _connect(self, pushed: Callable[[list[Any]], None] | None = None) -> Link:
        connection = self._pool.make_connection()  # type: ignore[no-untyped-call]
        try:
            await connection.connect()
        except BaseException:  # redis-py leaves it open where the loop ends it
            connection._close()
            raise
        if self._closed:
            connection._close()
            raise redis.ConnectionError(_ENDS)
        return Link(connection, self._seconds, pushed)


def packed(command: Command) -> list[bytes]:
    """As Redis takes it. A large word goes past hiredis, which takes 1.2 ms for a megabyte."""
    parts, begin = [b"*%d\r\n" % len(command)], 0
    for at, word in enumerate(command):
        if type(word) is bytes and len(word) > _LARGE_BYTES:
            parts += [_words(command[begin:at]), b"$%d\r\n" % len(word), word, b"\r\n"]
            begin = at + 1
    parts.append(_words(command[begin:]))
    return parts


def _words(words: Command) -> bytes:
    if not words:
        return b""
    packed: bytes = hiredis.pack_command(words)  # type: ignore[arg-type]  # its types are those of one word
    return packed[packed.index(b"\n") + 1 :]


def _checked(answers: list[Any]) -> list[Any]:
    for answer in answers:
        if isinstance(answer, Exception):
            raise answer
    return answers


def _seen(task: "asyncio.Task[Link]") -> None:
    """Where nobody waits any more, asyncio would log what came of it."""
    with contextlib.suppress(asyncio.CancelledError):
        task.exception()


class Script:
    """A script that Redis is sent once, and named from then on."""

    def __init__(self, shared: PipelinedRedis, text: str) -> None:
        self._shared, self._text = shared, text
        self._digest = hashlib.sha1(text.encode()).hexdigest().encode()

    async def __call__(self, keys: Sequence[Word], args: Sequence[Word], *then: Command) -> Any:
        """What it returns; the commands of `then` follow it in one transaction. Raises redis.RedisError."""
        try:
            return await self._run(then, "EVALSHA", self._digest, len(keys), *keys, *args)
        except redis.exceptions.NoScriptError:  # a Redis that was started since, or flushed
            return await self._run(then, "EVAL", self._text, len(keys), *keys, *args)

    async def _run(self, then: Sequence[Command], *command: Word) -> Any:
        if not then:
            return await self._shared.run(*command)
        *_, answers = await self._shared.run_all(("MULTI",), command, *then, ("EXEC",))
        return _checked(answers)[0]
