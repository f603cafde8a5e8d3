"""Label Studio's address in a browser, which tasks may hold: from the settings, from Label Studio, or from `/setup`.

It is only a name: we never call that address, and no token goes there.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Any

import requests

from yolo_backend.label_studio.errors import StudioError
from yolo_backend.settings import studio_address

log = logging.getLogger(__name__)

_IS_FRESH_S = 60.0


class OutsideAddress:
    """The address of one Label Studio in a browser; safe to share between threads."""

    def __init__(self, configured: str | None, introduced: str | None) -> None:
        self._address = configured
        self._introduced = introduced
        self._asking = threading.Lock()
        self._asked_at = float("-inf")

    @property
    def known(self) -> str | None:
        """The address, if it is known without asking."""
        return self._address or self._introduced

    def find(self, url: str, ask_templates: Callable[[], Any] | None) -> str | None:
        """The address of the Label Studio that is reached at `url`; None if it isn't known.

        `ask_templates` asks it for its templates, because the addresses of their pictures begin with LABEL_STUDIO_HOST.
        It is None if there is no token to ask with.
        """
        if not self._asking.acquire(blocking=self._asked_at == float("-inf")):
            return self.known  # another thread is asking anew
        try:
            is_fresh = time.monotonic() - self._asked_at < _IS_FRESH_S
            if self._address is None and ask_templates and not is_fresh:
                try:
                    self._address = _address_in(ask_templates())
                    self._introduced = None  # Label Studio itself knows better
                except (StudioError, requests.Timeout) as error:
                    log.info("Label Studio at %s doesn't tell its address in a browser: %s", url, error)
                self._asked_at = time.monotonic()
            return self.known
        finally:
            self._asking.release()


def as_address(url: str) -> str | None:
    """An address of Label Studio's; None if this can't be one."""
    try:
        return studio_address(url)
    except ValueError:
        return None


def _address_in(templates: Any) -> str | None:
    """The LABEL_STUDIO_HOST with which the pictures' addresses begin; None if it is empty. Raises StudioError."""
    known = templates if isinstance(templates, list) else []
    pictures = [str(template.get("image")) for template in known if isinstance(template, dict)]
    addresses = [picture.partition("/static/")[0] for picture in pictures if "/static/" in picture]
    if not addresses:
        raise StudioError("its templates have no pictures")
    return as_address(addresses[0])
