"""Callers that misbehave: what they send isn't HTTP, or isn't all of it, or they go away."""

from __future__ import annotations

import contextlib
import json
import random
import re
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import urlsplit

from tests.faults.backend import Backend, Outcome
from tests.faults.images import data_address, photo_file
from tests.faults.kinds import NO_ANSWER, TIMES, image_task
from tests.harness.bulk import LABEL_CONFIG

_ANSWER_WITHIN_S = 10.0
_STATUS_LINE = re.compile(rb"HTTP/1\.[01] (\d{3})")


@dataclass(frozen=True)
class BadCaller:
    """One thing that a caller does. `outcomes` are the statuses that may be answered, or NO_ANSWER."""

    name: str
    content: Callable[[], bytes]
    outcomes: frozenset[str]
    waits: bool = True


def inject_caller(backend: Backend, caller: BadCaller, times: int = TIMES) -> Outcome:
    """Call the backend so, some times, and see what it answers and that it still predicts."""
    outcome = Outcome(caller.name, times, lost="what that caller asked for")
    for _ in range(times):
        started_at = time.monotonic()
        outcome.came_out[_call(backend, caller)] += 1
        outcome.slowest_s = max(outcome.slowest_s, time.monotonic() - started_at)
    if not set(outcome.came_out) <= caller.outcomes:
        outcome.problems.append(f"{dict(outcome.came_out)} came out, expected {', '.join(sorted(caller.outcomes))}")
    if not backend.predicts():
        outcome.problems.append("afterwards, a good image has other boxes than before")
    return outcome


def _call(backend: Backend, caller: BadCaller) -> str:
    address = urlsplit(backend.url)
    with socket.create_connection((address.hostname, address.port), timeout=_ANSWER_WITHIN_S) as connection:
        with contextlib.suppress(OSError):  # the backend may hang up before all is sent
            connection.sendall(caller.content())
        if not caller.waits:
            time.sleep(0.05)
            return NO_ANSWER
        try:
            connection.shutdown(socket.SHUT_WR)
            match = _STATUS_LINE.match(connection.recv(1 << 16))
        except TimeoutError:
            return "a hang"
        except OSError:
            return NO_ANSWER
    return match.group(1).decode() if match else NO_ANSWER


def request_of(body: bytes, *headers: str, length: int | str | None = None) -> bytes:
    """The bytes of a POST to /predict."""
    shown_length = len(body) if length is None else length
    head = ["POST /predict HTTP/1.1", "Host: backend", "Connection: close", *headers, f"Content-Length: {shown_length}"]
    return "\r\n".join([*head, "", ""]).encode() + body


def _good_body(tasks: int = 1) -> bytes:
    address = data_address(photo_file())
    made = [image_task(f"{address}#{number}", 9_000_000 + number) for number in range(tasks)]
    return json.dumps({"tasks": made, "label_config": LABEL_CONFIG, "project": "9"}).encode()


def _bad(name: str, content: Callable[[], bytes], *outcomes: str, waits: bool = True) -> BadCaller:
    return BadCaller(f"a caller that {name}", content, frozenset(outcomes), waits)


CALLERS = [
    _bad(
        "hangs up in the middle of the body",
        lambda: request_of(_good_body()[:500], length=5000),
        NO_ANSWER,
        waits=False,
    ),
    _bad("ends in the middle of the body", lambda: request_of(_good_body()[:500], length=5000), NO_ANSWER, "400"),
    _bad("hangs up while 20 tasks are predicted", lambda: request_of(_good_body(20)), NO_ANSWER, waits=False),
    _bad("sends more than MAX_REQUEST_MEGABYTES", lambda: request_of(bytes(17_000_000)), NO_ANSWER, "413"),
    _bad("claims to send more than MAX_REQUEST_MEGABYTES", lambda: request_of(b"{", length=17_000_000), "413"),
    _bad("gives a negative Content-Length", lambda: request_of(b"{}", length=-1), "400"),
    _bad("gives a Content-Length that is no number", lambda: request_of(b"{}", length="many"), "400"),
    _bad("gives two Content-Lengths", lambda: request_of(_good_body(), "Content-Length: 5"), "400"),
    _bad("sends chunks that are none", lambda: _chunked(b"zzz\r\n{}"), "400", NO_ANSWER),
    _bad("sends chunks without the last", lambda: _chunked(b"2\r\n{}\r\n"), "400", NO_ANSWER),
    _bad("says gzip", lambda: request_of(_good_body()[:-1] + b"\x1f\x8b", "Content-Encoding: gzip"), "400"),
    _bad("sends 2,000 headers", lambda: request_of(b"{}", *["X-A: b"] * 2000), "400", "431"),
    _bad(
        "asks for an address of 1 MB",
        lambda: b"GET /" + b"a" * 1_000_000 + b" HTTP/1.1\r\n\r\n",
        "400",
        "414",
        NO_ANSWER,
    ),
    _bad("sends noise", lambda: random.Random(0).randbytes(2000) + b"\r\n\r\n", "400", NO_ANSWER),
    _bad("speaks TLS", lambda: b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(200), "400", NO_ANSWER),
    _bad("sends nothing", lambda: b"", NO_ANSWER),
]


def _chunked(chunks: bytes) -> bytes:
    head = b"POST /predict HTTP/1.1\r\nHost: backend\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n"
    return head + chunks
