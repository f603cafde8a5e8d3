"""How fast ONNX Runtime alone is, on tensors that are ready; a child process of `speed_limits`, which see."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

_WARM_UPS = 2


def rates(model: str, tensors: str, streams_and_batches: Sequence[tuple[int, int]], cores: int, for_s: float) -> Any:
    """Images per second: with one stream its session has all cores, with several each call has one."""
    images = np.load(tensors)
    found = []
    for streams, batch in streams_and_batches:
        session = _session(model, cores if streams == 1 else 1)
        with ThreadPoolExecutor(streams) as pool:
            done = [pool.submit(_rate, session, images[:batch], for_s) for _ in range(streams)]
            found.append(sum(stream.result() for stream in done))
    return found


def latencies(model: str, tensors: str, cores: int, for_s: float) -> Any:
    """The seconds of each run of one image, on so many cores."""
    session = _session(model, cores)
    image = np.load(tensors)[:1]
    _rate(session, image, 0)
    took_s = []
    ends_at = time.monotonic() + for_s
    while (began_at := time.monotonic()) < ends_at:
        _run(session, image)
        took_s.append(time.monotonic() - began_at)
    return took_s


def _session(model: str, threads: int) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def _run(session: Any, images: NDArray[np.float32]) -> None:
    session.run(None, {session.get_inputs()[0].name: images})


def _rate(session: Any, images: NDArray[np.float32], for_s: float) -> float:
    for _ in range(_WARM_UPS):
        _run(session, images)
    done = 0
    began_at = time.monotonic()
    while time.monotonic() < began_at + for_s:
        _run(session, images)
        done += len(images)
    return done / (time.monotonic() - began_at)


if __name__ == "__main__":
    question = json.loads(sys.argv[1])
    answers: dict[str, Callable[..., Any]] = {"rates": rates, "latencies": latencies}
    print(json.dumps(answers[question.pop("ask")](**question)))
