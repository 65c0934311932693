"""Addresses of hosts, asked for once a minute and without blocking the loop.

Names that are not addresses are looked up on a short-lived thread, because there is no portable way to ask
without blocking; everything else runs on the loop's thread.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable
from typing import Any

from fleetui.common.domain.clock import Clock

Address = tuple[int, Any]  # family, socket address
Answer = list[Address] | str
LOOKUP_LASTS_S = 60.0


class Resolver:
    """``call_soon`` has a function called on the loop's thread, from any thread."""

    def __init__(self, clock: Clock, call_soon: Callable[..., None]) -> None:
        self._clock = clock
        self._call_soon = call_soon
        self._known: dict[tuple[str, int], tuple[float, list[Address]]] = {}
        self._asked: dict[tuple[str, int], list[Callable[[Answer], None]]] = {}

    def resolve(self, host: str, port: int, then: Callable[[Answer], None]) -> None:
        """Call ``then`` with the addresses, or with why there are none: at once if known, else later."""
        key = (host, port)
        known = self._known.get(key)
        if known is not None and known[0] > self._clock.monotonic():
            then(known[1])
            return
        with contextlib.suppress(OSError, UnicodeError):
            addresses = _look_up(host, port, socket.AI_NUMERICHOST)
            self._keep(key, addresses)
            then(addresses)
            return
        waiting = self._asked.setdefault(key, [])
        waiting.append(then)
        if len(waiting) == 1:
            # A daemon: a resolver may hang for half a minute, and it holds nothing.
            threading.Thread(target=self._ask, args=key, name="link-resolver", daemon=True).start()

    def _ask(self, host: str, port: int) -> None:
        answer: Answer
        try:
            answer = _look_up(host, port, 0)
        except (OSError, UnicodeError) as error:
            answer = f"{host} has no address: {getattr(error, 'strerror', None) or error}"
        self._call_soon(self._answered, (host, port), answer)

    def _answered(self, key: tuple[str, int], answer: Answer) -> None:
        if isinstance(answer, list):
            self._keep(key, answer)
        for then in self._asked.pop(key, []):
            then(answer)

    def _keep(self, key: tuple[str, int], addresses: list[Address]) -> None:
        self._known[key] = (self._clock.monotonic() + LOOKUP_LASTS_S, addresses)


def _look_up(host: str, port: int, flags: int) -> list[Address]:
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=flags)
    return list(dict.fromkeys((int(family), address) for family, _, _, _, address in found))
