"""The worker's view of several Tritons: they take turns, those that have much to do or are away are passed over.

gRPC's own round robin would send calls to a Triton that hangs, and to one that lacks the model.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from gateway.errors import ModelMismatch, ModelUnavailable
from gateway.triton.addresses import RESOLVE_SECONDS, Addresses, is_several
from gateway.triton.client import (
    Inference,
    ModelChanged,
    TritonBusy,
    TritonClient,
    TritonFailing,
    TritonUnavailable,
)
from gateway.triton.connection import POOLED_ARGUMENTS
from gateway.triton.shared_memory import Canvas
from gateway.triton.spec import ModelSpec

_T = TypeVar("_T")

log = logging.getLogger(__name__)

_LACK_SECONDS = 5.0  # how long a Triton that lacks a model is not asked for it
_FIRST_SECONDS = 1.0  # how long a task waits for the first Triton that answers
_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 0.1, 3.0  # before a Triton that is left out is asked whether it is live
_MORE = 1  # running calls by which one may be ahead of another
_Wanted = tuple[str, str]  # model and version, as a task asks for them
_FINAL = (ModelUnavailable, ModelMismatch)


class Peer:
    """One of the Tritons. All but `address` and `client` is guarded by the pool's lock."""

    def __init__(self, address: str, client: TritonClient) -> None:
        self.address, self.client = address, client
        self.is_up = False
        self.gone = False  # its name no longer has this address
        self.why = "it has not answered yet"
        self.running = 0
        self.turn = 0  # when it was last chosen
        self.outages = 0  # since it last answered an inference
        self.served = set[str]()  # models that it has been seen to have
        self.lacks: dict[_Wanted, float] = {}  # until when it is not asked

    def may_have(self, model: str) -> bool:
        return model in self.served or not self.served


class TritonPool:
    """Satisfies `worker.pipeline.Inferer` with the Tritons of several addresses; blocking and thread-safe.

    A Triton that is away is left out, asked again and again whether it is live, and taken back; others do at once what
    it was to do. Where two serve other labels, or another input, as the same version of a model, the first in the
    order of TRITON_URL counts, and the other is not asked for that model.
    """

    def __init__(self, addresses: Addresses, timeout: float, memory_key: str | None = None) -> None:
        self._addresses, self._timeout, self._memory_key = addresses, timeout, memory_key
        self._change = threading.Condition()
        self._peers: list[Peer] = []
        self._turns = 0
        self._counting: dict[tuple[str, str], tuple[Peer, ModelSpec]] = {}  # by model and the version that answers
        self._known = set[_Wanted]()
        self._learning = threading.Lock()
        self._warned = set[str]()
        self._closed = threading.Event()
        if addresses.change:
            threading.Thread(target=self._keep_resolved, name="triton-names", daemon=True).start()
        else:
            self._take_over(addresses.look())

    def close(self) -> None:
        self._closed.set()
        for peer in self._peers:
            peer.client.close()

    def spec(self, model: str, version: str = "") -> ModelSpec:
        """As `TritonClient.spec`, of any Triton that has the model."""
        if (model, version) not in self._known:
            self._learn(model, version)
        return self._asked(model, version, lambda peer: self._agreed(peer, model, version))

    def canvas(self, spec: ModelSpec) -> AbstractContextManager[Canvas]:
        """In no Triton's memory: which of them gets the image is open until then."""
        return nullcontext(Canvas())

    def infer(
        self, spec: ModelSpec, image: npt.NDArray[np.uint8], version: str = "", canvas: Canvas | None = None
    ) -> Inference:
        """As `TritonClient.infer`; tried on each Triton that has the model before it raises."""

        def infer(peer: Peer) -> Inference:
            own = self._agreed(peer, spec.name, version)
            if own.input != spec.input:
                raise ModelChanged(f"{peer.address} serves version {own.version} of {spec.name}, for another size")
            self._take_turn(peer)
            answer = peer.client.infer(own, image, version)
            if answer.spec != own:  # another version has answered
                self._agreed(peer, spec.name, version)
            return answer

        return self._asked(spec.name, version, infer)

    def _asked(self, model: str, version: str, ask: Callable[[Peer], _T]) -> _T:
        """The first answer. Raises as `TritonClient.infer` does."""
        errors: dict[Peer, Exception] = {}
        end = time.monotonic() + 2 * self._timeout
        while time.monotonic() < end and (peer := self._chosen((model, version), errors)):
            try:
                with self._using(peer):
                    answer = ask(peer)
            except (TritonUnavailable, *_FINAL) as error:
                errors[peer] = error
                self._note(peer, (model, version), error)
            else:
                peer.outages = 0
                peer.served.add(model)
                return answer
        raise self._verdict(model, errors)

    def _chosen(self, wanted: _Wanted, tried: Iterable[Peer]) -> Peer | None:
        """The next one in turn; one that has more to do than another by some is passed over."""
        now, (model, _) = time.monotonic(), wanted
        with self._change:
            self._change.wait_for(lambda: any(peer.is_up for peer in self._peers), _FIRST_SECONDS)
            up = [peer for peer in self._peers if peer.is_up and peer not in tried]
            fit = [peer for peer in up if peer.lacks.get(wanted, 0.0) < now]
            if not fit and not any(model in peer.served for peer in tried):
                fit = up  # better asked once more than refused
            if not fit:
                return None
            least = min(peer.running for peer in fit)
            peer = min((peer for peer in fit if peer.running <= least + _MORE), key=lambda peer: peer.turn)
            peer.running += 1
            return peer

    def _take_turn(self, peer: Peer) -> None:
        with self._change:
            self._turns += 1
            peer.turn = self._turns

    @contextmanager
    def _using(self, peer: Peer) -> Iterator[None]:
        try:
            yield
        finally:
            with self._change:
                peer.running -= 1
                idle = peer.gone and not peer.running
            if idle:
                peer.client.close()

    def _note(self, peer: Peer, wanted: _Wanted, error: Exception) -> None:
        """What an error says of a Triton."""
        if isinstance(error, (TritonBusy, ModelChanged)):
            return
        if isinstance(error, TritonUnavailable) and not isinstance(error, TritonFailing):
            self._leave_out(peer, str(error))
            return
        pause = _LACK_SECONDS if isinstance(error, _FINAL) else _FIRST_SECONDS
        with self._change:
            peer.lacks[wanted] = time.monotonic() + pause
        if isinstance(error, ModelUnavailable):
            peer.served.discard(wanted[0])

    def _verdict(self, model: str, errors: dict[Peer, Exception]) -> Exception:
        """What to raise when nobody has answered: what is worth waiting for comes first."""
        with self._change:
            away = [peer for peer in self._peers if not peer.is_up and peer.may_have(model)]
            reasons = [f"{peer.address}: {peer.why}" for peer in away]
        worth = [error for error in errors.values() if not isinstance(error, _FINAL)]
        final = [error for error in errors.values() if isinstance(error, _FINAL)]
        if worth:
            return worth[-1]
        if away or not final:
            nobody = "; ".join(reasons or self._addresses.problems.values()) or "none is left"
            return TritonUnavailable(f"no Triton that has {model} answers: {nobody}")
        return final[0]

    def _agreed(self, peer: Peer, model: str, version: str) -> ModelSpec:
        """The spec of this Triton. Raises ModelMismatch when it is not that of the Triton that counts."""
        own = peer.client.spec(model, version)
        with self._change:
            counting, spec = self._counting.get((model, own.version), (peer, own))
            if counting.gone or self._rank(peer) <= self._rank(counting):
                self._counting[model, own.version] = counting, spec = peer, own
        if difference := _difference(own, spec):
            problem = (
                f"{peer.address} and {counting.address} serve {difference} as version {own.version} of {model}: "
                f"{counting.address} counts, the other is not asked for it; export it again to both"
            )
            self._warn(problem)
            peer.client.forget(model)  # it may be exported again
            raise ModelMismatch(problem)
        return own

    def _rank(self, peer: Peer) -> int:
        return self._peers.index(peer) if peer in self._peers else len(self._peers)

    def _learn(self, model: str, version: str) -> None:
        """Ask all in their order, before the first answer: what counts is not to depend on who was the quickest."""
        with self._learning:
            if (model, version) in self._known:
                return
            with self._change:
                self._change.wait_for(lambda: all(peer.is_up for peer in self._peers), _FIRST_SECONDS)
                peers = [peer for peer in self._peers if peer.is_up]
            for peer in peers:
                self._compare(peer, model, version)
            if any(name == model for name, _ in self._counting):
                self._known.add((model, version))

    def _compare(self, peer: Peer, model: str, version: str) -> None:
        try:
            self._agreed(peer, model, version)
        except (TritonUnavailable, *_FINAL) as error:
            self._note(peer, (model, version), error)
        else:
            peer.served.add(model)

    def _leave_out(self, peer: Peer, why: str) -> None:
        with self._change:
            was_up, peer.is_up, peer.why = peer.is_up, False, why
            peer.outages += was_up
        if was_up:
            log.warning("Triton at %s is left out until it answers: %s", peer.address, why)
            self._watch(peer)

    def _watch(self, peer: Peer) -> None:
        def watch() -> None:
            with suppress(ValueError):  # gRPC's word for a client that was closed meanwhile
                self._await(peer)

        threading.Thread(target=watch, name=f"triton-{peer.address}", daemon=True).start()

    def _await(self, peer: Peer) -> None:
        """Ask it whether it is live until it is, then take it back."""
        pause = min(_FIRST_PAUSE_SECONDS * 2**peer.outages, _LONGEST_PAUSE_SECONDS) if peer.outages else 0.0
        while not self._closed.wait(pause) and not peer.gone:
            if why := peer.client.outage():
                peer.why = why
                pause = min(max(2 * pause, _FIRST_PAUSE_SECONDS), _LONGEST_PAUSE_SECONDS)
                continue
            for wanted in list(self._known):
                self._compare(peer, *wanted)
            with self._change:
                peer.is_up = True
                self._change.notify_all()
            log.info("Triton at %s answers", peer.address)
            return

    def _keep_resolved(self) -> None:
        while not self._closed.is_set():
            self._take_over(self._addresses.look())
            for problem in self._addresses.problems.values():
                self._warn(f"{problem}; tried again every {RESOLVE_SECONDS:g} s")
            self._warned -= {each for each in self._warned if "TRITON_URL" in each and not self._addresses.problems}
            self._closed.wait(RESOLVE_SECONDS)

    def _take_over(self, addresses: list[str]) -> None:
        """Begin with the new ones; those that are no longer among the addresses end once they have nothing to do."""
        known = {peer.address: peer for peer in self._peers}
        added = [Peer(each, self._client(each)) for each in addresses if each not in known]
        fresh = known | {peer.address: peer for peer in added}
        removed = [peer for address, peer in known.items() if address not in addresses]
        with self._change:
            self._peers = [fresh[each] for each in addresses]
            for peer in removed:
                peer.gone, peer.is_up = True, False
            idle = [peer for peer in removed if not peer.running]
        for peer in added:
            self._watch(peer)
        for peer in removed:
            log.info("Triton at %s is no longer among the addresses", peer.address)
        for peer in idle:
            peer.client.close()

    def _client(self, address: str) -> TritonClient:
        return TritonClient(address, self._timeout, self._memory_key, channel_arguments=POOLED_ARGUMENTS)

    def _warn(self, problem: str) -> None:
        """Once, not at every task."""
        if problem not in self._warned:
            self._warned.add(problem)
            log.warning("%s", problem)


def connect(
    url: str, timeout: float, memory_key: str | None = None, http_url: str | None = None
) -> TritonClient | TritonPool:
    """A client of the one Triton, or of the several, that TRITON_URL means; the rest as for `TritonClient`.

    Several are asked over gRPC only: `http_url` is the address of one, and over HTTP one that hangs is not noticed.
    """
    if is_several(url):
        return TritonPool(Addresses(url), timeout, memory_key)
    return TritonClient(url, timeout, memory_key, http_url)


def _difference(one: ModelSpec, other: ModelSpec) -> str:
    """What of two versions of the same number is not the same; empty where all is."""
    if one.labels != other.labels:
        return "other labels"
    return "" if one.input == other.input else "inputs of another size"
