"""The gateway's view of several Tritons, with the methods that it uses of the client of one."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any

from tritonclient.grpc.aio import InferenceServerClient
from tritonclient.grpc.service_pb2 import ModelStatisticsResponse, RepositoryIndexResponse
from tritonclient.utils import InferenceServerException

from gateway.triton.addresses import RESOLVE_SECONDS, Addresses, is_several
from gateway.triton.connection import CHANNEL_ARGUMENTS, OUTAGE, POOLED_ARGUMENTS
from gateway.triton.loading import is_absent

log = logging.getLogger(__name__)

_AGAIN_SECONDS = 1.0  # longest wait for the answer of a Triton that did not give the last one
_STATES = ("READY", "LOADING", "UNLOADING", "UNAVAILABLE")  # what of several Tritons' states is shown, first to last


class Peer:
    """One of the Tritons."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.client = InferenceServerClient(address, channel_args=POOLED_ARGUMENTS)
        self.is_up = True
        self.models = set[str]()  # those that it was last seen to serve

    async def ask(self, method: str, *given: Any, client_timeout: float, **named: Any) -> Any:
        """Raises InferenceServerException."""
        seconds = client_timeout if self.is_up else min(client_timeout, _AGAIN_SECONDS)
        try:
            answer = await getattr(self.client, method)(*given, client_timeout=seconds, **named)
        except InferenceServerException as error:
            if is_outage(error):
                self._note(False, error.message() or "")
            raise
        self._note(True, "")
        return answer

    def _note(self, is_up: bool, why: str) -> None:
        if self.is_up != is_up:
            (log.info if is_up else log.warning)(
                "Triton at %s %s", self.address, "answers" if is_up else f"is out: {why}"
            )
        self.is_up = is_up


class Tritons:
    """What all of them together serve. A question about a model goes to the first of TRITON_URL that has it.

    Methods and answers are those of `tritonclient.grpc.aio.InferenceServerClient`. `changed` is called with which
    Tritons there are, by address, and whether each is up.
    """

    def __init__(self, addresses: Addresses) -> None:
        self._addresses = addresses
        self._problems = dict[str, str]()
        self._peers: dict[str, Peer] = {}
        self._leaving: list[Peer] = []  # they may still answer
        self.changed: Callable[[dict[str, bool]], None] = lambda _: None
        if not addresses.change:
            self._peers = {address: Peer(address) for address in addresses.look()}

    async def keep_resolved(self) -> None:
        """Look for the addresses again and again, where they can change; runs until then, or cancelled."""
        while self._addresses.change:
            await self._take_over(await asyncio.to_thread(self._addresses.look))
            await asyncio.sleep(RESOLVE_SECONDS)

    async def close(self) -> None:
        for peer in (*self._peers.values(), *self._leaving):
            await peer.client.close()

    async def is_model_ready(self, model: str, version: str = "", *, client_timeout: float) -> bool:
        """Whether one of them serves it. Raises InferenceServerException when none answers."""
        errors = [self._nobody()]
        for peer in self._in_order():
            try:
                if await peer.ask("is_model_ready", model, version, client_timeout=client_timeout):
                    return True
            except InferenceServerException as error:
                errors.append(error)
        if len(errors) > len(self._peers):
            raise errors[-1]
        return False

    async def get_model_config(self, model: str, version: str = "", *, client_timeout: float) -> Any:
        return await self._first(model, "get_model_config", model, version, client_timeout=client_timeout)

    async def infer(self, model: str, inputs: Any, version: str = "", **named: Any) -> Any:
        return await self._first(model, "infer", model, inputs, version, **named)

    async def get_model_repository_index(self, *, client_timeout: float, headers: Any = None) -> Any:
        """The best state of each version; where not all that answer serve it, the reason says how many do."""
        answers = await self._all("get_model_repository_index", headers=headers, client_timeout=client_timeout)
        merged = RepositoryIndexResponse()
        for name, version in dict.fromkeys((entry.name, entry.version) for each in answers for entry in each.models):
            found = [e for each in answers for e in each.models if (e.name, e.version) == (name, version)]
            best = min(found, key=lambda entry: _STATES.index(entry.state) if entry.state in _STATES else len(_STATES))
            ready = sum(entry.state == "READY" for entry in found)
            partly = f"served by {ready} of {len(answers)} Tritons" if 0 < ready < len(answers) else best.reason
            merged.models.add(name=name, version=version, state=best.state, reason=partly)
        return merged

    async def get_inference_statistics(self, *, client_timeout: float) -> Any:
        """Of all models of all Tritons; one that several serve is there several times."""
        merged = ModelStatisticsResponse()
        for answer in await self._all("get_inference_statistics", client_timeout=client_timeout):
            merged.model_stats.extend(answer.model_stats)
        return merged

    async def _first(self, model: str, method: str, *given: Any, **named: Any) -> Any:
        """The answer of the first that has the model. The outage of one that had it is raised before its absence."""
        errors = [(False, self._nobody())]
        for peer in self._in_order():
            try:
                answer = await peer.ask(method, *given, **named)
            except InferenceServerException as error:
                errors.append((is_outage(error) and model in peer.models, error))
            else:
                peer.models.add(model)
                return answer
        raise next((error for had, error in errors if had), (errors[1:] or errors)[0][1])

    async def _all(self, method: str, **named: Any) -> list[Any]:
        """The answers of those that give one. Raises InferenceServerException when none does."""
        asked: list[Awaitable[Any]] = [peer.ask(method, **named) for peer in self._peers.values()]
        answers = await asyncio.gather(*asked, return_exceptions=True)
        self.changed({peer.address: peer.is_up for peer in self._peers.values()})
        errors = [each for each in answers if isinstance(each, BaseException)]
        if defects := [each for each in errors if not isinstance(each, InferenceServerException)]:
            raise defects[0]
        if len(errors) == len(answers):
            raise (errors or [self._nobody()])[0]
        return [each for each in answers if not isinstance(each, BaseException)]

    def _in_order(self) -> list[Peer]:
        """Those that are up first; in the order of TRITON_URL."""
        return sorted(self._peers.values(), key=lambda peer: not peer.is_up)

    def _nobody(self) -> InferenceServerException:
        reason = "; ".join(self._addresses.problems.values()) or "TRITON_URL has no address yet"
        return InferenceServerException(reason, "StatusCode.UNAVAILABLE")

    async def _take_over(self, addresses: list[str]) -> None:
        before = self._peers
        self._peers = {address: before.get(address) or Peer(address) for address in addresses}
        for entry, problem in self._addresses.problems.items():
            if self._problems.get(entry) != problem:
                log.warning("%s; tried again every %g s", problem, RESOLVE_SECONDS)
        self._problems = dict(self._addresses.problems)
        for peer in self._leaving:
            await peer.client.close()
        self._leaving = [peer for address, peer in before.items() if address not in self._peers]
        for peer in self._leaving:
            log.info("Triton at %s is no longer among the addresses", peer.address)


def is_outage(error: InferenceServerException) -> bool:
    """Whether Triton is away, and not only the model."""
    return error.status() in OUTAGE and not is_absent(error)


def connect(url: str) -> Any:
    """A client of the one Triton, or of the several, that TRITON_URL means."""
    if is_several(url):
        return Tritons(Addresses(url))
    return InferenceServerClient(url, channel_args=CHANNEL_ARGUMENTS)
