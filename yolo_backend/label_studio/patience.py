"""A Label Studio that may be unreachable for a while, for example during a restart."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import requests

from yolo_backend.label_studio.endpoint import Call
from yolo_backend.label_studio.errors import StudioError, StudioRefusedError, StudioRejectedError, explain
from yolo_backend.label_studio.pauses import Pauses
from yolo_backend.label_studio.studio import Studio

_ASK_AGAIN_AFTER_S = (1.0, 15.0)
_WAIT_AT_MOST_S = 600.0


class PatientStudio(Studio):
    """Repeats a call until Label Studio answers, if the call may be repeated. `remark` tells a person why it waits.

    It stops waiting when `stop` is set. Raises what `Studio` does, after ten minutes.
    """

    def __init__(self, url: str, token: str | None, remark: Callable[[str], None], stop: threading.Event) -> None:
        super().__init__(url, token)
        self._remark = remark
        self._stop = stop
        self._gone_since: float | None = None
        self._telling = threading.Lock()

    def perform(self, call: Call, wanted: str | None, timeout_s: float) -> Any:
        """The same as `Studio.perform`, repeated while Label Studio is unreachable."""
        pauses = Pauses(*_ASK_AGAIN_AFTER_S)
        while True:
            try:
                answer = super().perform(call, wanted, timeout_s)
            except (StudioRefusedError, StudioRejectedError):
                raise
            except (StudioError, requests.Timeout) as error:
                if not call.is_repeatable or self._stop.is_set() or not self._may_wait(error):
                    raise
            else:
                self._is_back()
                return answer
            self._stop.wait(pauses.next())

    def _may_wait(self, error: StudioError | requests.Timeout) -> bool:
        if isinstance(error, StudioError) and error.trouble and error.trouble.lasts:
            return False
        with self._telling:
            if self._gone_since is None:
                self._gone_since = time.monotonic()
                self._remark(f"{explain(error)}. Waiting for it, {_WAIT_AT_MOST_S / 60:.0f} minutes at most")
            return time.monotonic() - self._gone_since < _WAIT_AT_MOST_S

    def _is_back(self) -> None:
        with self._telling:
            if self._gone_since is not None:
                self._gone_since = None
                self._remark("Label Studio answers again: going on")
