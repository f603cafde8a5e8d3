"""Bad bodies and bad images by the thousand, made by hypothesis and sent to the running backend."""

from __future__ import annotations

import json
import struct
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import requests
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.faults.backend import Backend, UnexpectedAnswerError
from tests.faults.images import FORMATS, data_address, photo_file, tiny_file
from tests.faults.kinds import PREDICTED, image_task
from tests.harness.bulk import LABEL_CONFIG

_TIMEOUT_S = 30.0
_MAX_IMAGES = 8
_JSON_TYPE = {"Content-Type": "application/json"}
_BAD_CONFIGS = (
    "<View/>",
    "<View>",
    "&lt;",
    LABEL_CONFIG.replace("$image", "image"),
    LABEL_CONFIG.replace("$image", "$other"),
    LABEL_CONFIG.replace('toName="image"', 'toName="other"'),
    LABEL_CONFIG.replace('toName="image"', 'toName="image" model_path="../x.pt"'),
    LABEL_CONFIG.replace('toName="image"', 'toName="image" model_score_threshold="much"'),
    LABEL_CONFIG.replace("nut", "walnut").replace("bolt", "lightning").replace("washer", "machine"),
)


@dataclass
class Generated:
    """What hypothesis made, and what came out."""

    bodies: Counter[str] = field(default_factory=Counter)
    images: Counter[str] = field(default_factory=Counter)
    slowest_s: float = 0.0
    problems: list[str] = field(default_factory=list)

    @property
    def total(self) -> int:
        return self.bodies.total() + self.images.total()


def send_bad_bodies(backend: Backend, generated: Generated, count: int) -> None:
    """Send about `count` bodies to each of the routes that take one."""
    with requests.Session() as session:

        def send(route: str, content: bytes) -> None:
            try:
                response = session.post(backend.url + route, data=content, headers=_JSON_TYPE, timeout=_TIMEOUT_S)
            except requests.RequestException as error:
                generated.problems.append(f"{route} with {content[:200]!r}: {type(error).__name__}")
                return
            generated.bodies[f"{route} {response.status_code}"] += 1
            generated.slowest_s = max(generated.slowest_s, response.elapsed.total_seconds())
            if response.status_code >= 500 or "Traceback" in response.text:
                generated.problems.append(f"{route} answers {response.status_code} to {content[:200]!r}")

        for route, contents in {"/predict": _PREDICT, "/setup": _SETUP, "/webhook": _WEBHOOK}.items():
            _run(partial(send, route), contents, count)


def send_bad_images(backend: Backend, generated: Generated, count: int) -> None:
    """Send about `count` requests of damaged images."""

    def send(contents: list[bytes]) -> None:
        before = backend.failure_kinds()
        tasks = [image_task(data_address(content), backend.new_task_id()) for content in contents]
        try:
            results = backend.predict(tasks, timeout_s=_TIMEOUT_S)
        except (UnexpectedAnswerError, requests.RequestException) as error:
            generated.problems.append(f"{len(contents)} damaged images: {error}")
            return
        kinds = backend.failure_kinds() - before
        predicted = sum(result != [] for result in results)
        if kinds.total() + predicted != len(contents):
            generated.problems.append(f"{len(contents)} damaged images: {predicted} predicted, {dict(kinds)}")
        generated.images += kinds + Counter({PREDICTED: predicted})

    _run(send, st.lists(_IMAGE, min_size=1, max_size=_MAX_IMAGES), count)


def _run(send: Callable[[Any], None], strategy: st.SearchStrategy[Any], count: int) -> None:
    @settings(
        max_examples=count,
        derandomize=True,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(strategy)
    def run(example: Any) -> None:
        send(example)

    run()


# Bodies

_LEAF = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=12),
    st.sampled_from(
        [LABEL_CONFIG, *_BAD_CONFIGS, "http://127.0.0.1:9/", "http://localhost/", "/data/upload/a.jpg", "1.1"]
    ),
)
_JSON: st.SearchStrategy[Any] = st.recursive(
    _LEAF,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.dictionaries(st.one_of(st.text(max_size=6), st.sampled_from(["id", "data", "image"])), inner, max_size=4),
    ),
    max_leaves=8,
)


def _mostly(usual: st.SearchStrategy[Any], *others: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Three times out of four `usual`; one_of takes them in equal shares."""
    return st.integers(0, 3).flatmap(lambda number: usual if number else st.one_of(*others))


_TASK = _mostly(
    st.fixed_dictionaries(
        {"data": _mostly(st.fixed_dictionaries({"image": _JSON}), _JSON)}, optional={"id": _JSON, "project": _JSON}
    ),
    st.dictionaries(st.text(max_size=6), _JSON, max_size=3),
)
_CONFIG = _mostly(st.just(LABEL_CONFIG), st.sampled_from(_BAD_CONFIGS), _JSON)
_CALLER = {"project": _JSON, "hostname": _JSON, "access_token": _JSON, "extra_params": _JSON}


def _bodies(
    required: dict[str, st.SearchStrategy[Any]], optional: dict[str, st.SearchStrategy[Any]]
) -> st.SearchStrategy[bytes]:
    """Mostly bodies that are nearly right; and some with parts missing, with text destroyed, or that never were."""
    nearly = st.fixed_dictionaries(required, optional={**optional, **_CALLER}).map(_as_text)
    partial = st.fixed_dictionaries({}, optional={**required, **optional, **_CALLER}).map(_as_text)
    return _mostly(nearly, partial, _damaged(nearly), _JSON.map(_as_text), st.binary(max_size=60))


def _as_text(body: Any) -> bytes:
    return json.dumps(body).encode()


def _damaged(contents: st.SearchStrategy[bytes]) -> st.SearchStrategy[bytes]:
    """Cut off, with bytes changed, or with another one's end."""
    changes = st.lists(st.tuples(st.integers(0, 2**20), st.integers(0, 255)), min_size=1, max_size=12)
    return st.one_of(
        st.builds(lambda content, share: content[: int(len(content) * share)], contents, st.floats(0, 1)),
        st.builds(_changed, contents, changes),
        st.builds(
            lambda a, b, share: a[: int(len(a) * share)] + b[int(len(b) * share) :], contents, contents, st.floats(0, 1)
        ),
    )


def _changed(content: bytes, changes: list[tuple[int, int]]) -> bytes:
    changed = bytearray(content)
    for place, byte in changes if changed else []:
        changed[place % len(changed)] = byte
    return bytes(changed)


_TASKS = _mostly(st.lists(_TASK, min_size=1, max_size=4), st.lists(_JSON, max_size=3), _JSON)
_PARAMS = _mostly(st.fixed_dictionaries({"context": st.dictionaries(st.text(max_size=6), _JSON, max_size=2)}), _JSON)
_PREDICT = _bodies({"tasks": _TASKS, "label_config": _CONFIG}, {"params": _PARAMS})
_SETUP = _bodies({"schema": _CONFIG}, {})
_WEBHOOK = _bodies({"action": _mostly(st.text(min_size=1, max_size=12), _JSON)}, {"data": _JSON})

# Images

_FILE = st.one_of(st.sampled_from(FORMATS).map(tiny_file), st.sampled_from(FORMATS).map(photo_file))
_NUMBER = st.sampled_from([0, 1, 0x7F, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF])


def _with_header_number(content: bytes, place: int, number: int, order: str) -> bytes:
    """One of the first hundred numbers replaced by one that is at the limit of something."""
    place %= min(100, len(content))
    return content[:place] + struct.pack(f"{order}I", number) + content[place + 4 :]


_IMAGE = st.one_of(
    _damaged(_FILE),
    st.builds(_with_header_number, _FILE, st.integers(0, 99), _NUMBER, st.sampled_from("<>")),
    st.builds(lambda head, tail, length: head[:length] + tail[length:], _FILE, _FILE, st.integers(1, 64)),
    st.binary(max_size=200),
)
