"""Images by URL, from public hosts over HTTPS, bounded in bytes and time."""

import asyncio
from collections.abc import Mapping

import httpcore

from gateway.errors import FetchFailed, ImageTooLarge, ServiceUnavailable, SwitchedOff
from gateway.outbound.https import NameServerSlow, Outbound, OutboundError
from gateway.outbound.turns import Turns
from gateway.settings import Settings

_FETCHES_AT_A_TIME, _FETCHES_OF_A_CLIENT = 32, 8  # bounds the memory; who waits for a place does so within its time
_HEADERS = {"Accept": "image/jpeg, image/png, image/webp, image/bmp, image/gif"}


class Fetcher:
    """Fetches encoded images; one per web process."""

    def __init__(self, settings: Settings, outbound: Outbound) -> None:
        self._settings = settings
        self._outbound = outbound
        self._turns = Turns(_FETCHES_AT_A_TIME, _FETCHES_OF_A_CLIENT)

    async def fetch(self, url: str, client: str = "") -> bytes:
        """The body behind `url`, at most `max_image_bytes`; what it holds is not looked at.

        Raises SwitchedOff, UrlNotAllowed, FetchFailed, ImageTooLarge, ServiceUnavailable.
        """
        if not self._settings.fetch_urls:
            raise SwitchedOff("images by URL are switched off on this server (FETCH_URLS); send the image itself")
        begun = False
        try:
            async with asyncio.timeout(self._settings.fetch_timeout):
                await self._turns.take(client)
                begun = True
                try:
                    async with self._outbound.request("GET", url, _HEADERS, client=client) as response:
                        _check(response)
                        return await self._read(response)
                finally:
                    self._turns.free(client)
        except NameServerSlow as error:
            raise ServiceUnavailable(str(error)) from error
        except OutboundError as error:
            raise FetchFailed(f"the image cannot be fetched: {error}") from error
        except TimeoutError as error:
            if not begun:
                raise ServiceUnavailable("too many images are being fetched; try again later") from error
            raise FetchFailed(f"the image did not come within {self._settings.fetch_timeout:g} s") from error

    async def _read(self, response: httpcore.Response) -> bytes:
        most_bytes = self._settings.max_image_bytes
        declared = _headers(response).get("content-length", "")
        body = bytearray()
        too_large = declared.isdecimal() and int(declared) > most_bytes
        if not too_large:
            async for chunk in response.aiter_stream():
                body += chunk
                too_large = len(body) > most_bytes
                if too_large:
                    break
        if too_large:
            raise ImageTooLarge(f"the image behind the URL has more than {most_bytes} bytes, the most that is taken")
        return bytes(body)


def _check(response: httpcore.Response) -> None:
    if 300 <= response.status < 400:
        raise FetchFailed("the URL answers with a redirect, and none is followed; send the address it leads to")
    if response.status != 200:
        raise FetchFailed(f"the URL answers with status {response.status}, 200 is needed")
    encoding = _headers(response).get("content-encoding", "identity").strip().lower()
    if encoding != "identity":
        raise FetchFailed("the URL answers with a compressed body though none was asked for")


def _headers(response: httpcore.Response) -> Mapping[str, str]:
    return {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in response.headers}
