"""Label Studio's own API: one Label Studio, one token, and the calls that the backend makes."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from typing import Any

import requests

from yolo_backend.label_studio.access import Access
from yolo_backend.label_studio.checks import ReachabilityCheck, TokenCheck
from yolo_backend.label_studio.connections import Connections
from yolo_backend.label_studio.endpoint import Answer, Call, Endpoint
from yolo_backend.label_studio.errors import StudioError
from yolo_backend.label_studio.filters import holds
from yolo_backend.label_studio.outside import OutsideAddress
from yolo_backend.label_studio.refusals import explain_strange, raise_for_status
from yolo_backend.label_studio.tokens import Token

# After storing a chunk of predictions, Label Studio recounts the whole project.
_IMPORT_TIMEOUT_S = 300.0
_READ_TIMEOUT_S = 60.0
_OUTSIDE_TIMEOUT_S = 5.0
_IDS_PER_QUESTION = 500  # because they stand in the address, which proxies limit to 8 kB
_SUCCESSES = frozenset({200, 201, 204})


class Studio:
    """One Label Studio and one token; safe to share between threads."""

    def __init__(
        self,
        url: str,
        token: str | None,
        *,
        set_by: str = "LABEL_STUDIO_API_KEY",
        outside_url: str | None = None,
        introduced_as: str | None = None,
        connections: Connections | None = None,
    ) -> None:
        self.endpoint = Endpoint(url, connections or Connections())
        self._token = Token(token, set_by)
        self._access = Access(self.endpoint, self._token)
        self._token_check = TokenCheck(self.endpoint, self._token, self._access)
        self._reachability = ReachabilityCheck(self.endpoint)
        self._outside = OutsideAddress(outside_url, introduced_as)

    def __repr__(self) -> str:
        return f"Studio({self.url!r})"

    @property
    def url(self) -> str:
        """Its address as this process reaches it."""
        return self.endpoint.url

    @property
    def token(self) -> str | None:
        """The token as it was configured."""
        return self._token.value

    @property
    def has_personal_token(self) -> bool:
        """Returns True if the token is a Personal Access Token."""
        return self._token.is_personal

    @property
    def known_outside_url(self) -> str | None:
        """Its address in a browser, if that is known without asking."""
        return self._outside.known

    def outside_url(self) -> str | None:
        """Its address in a browser; None if it isn't known."""
        return self._outside.find(self.url, self._ask_templates if self.token else None)

    def authorization(self, *, renew: bool = False) -> str | None:
        """What to send as `Authorization`; None without a token.

        Raises StudioError if a Personal Access Token can't be exchanged, requests.Timeout if nobody answers.
        """
        return self._access.authorization(renew=renew)

    def must_ask(self) -> bool:
        """Returns True if `authorization` has to exchange the token first, or to wait for another thread's exchange."""
        return self._access.must_ask()

    def check(self) -> None:
        """Ask Label Studio whether it accepts our token; no answer in time is no failure. Raises StudioError."""
        self._token_check.check()

    def is_unreachable(self) -> bool:
        """Returns True if Label Studio is unreachable, or a proxy answers 5xx for it."""
        return self._reachability.is_unreachable()

    def label_config(self, project: int) -> str:
        """The project's labeling config as it is now. Raises StudioError, requests.Timeout."""
        query = {"include": "label_config"}
        return str(self.call("GET", f"/api/projects/{project}/", "label_config", _READ_TIMEOUT_S, query=query))

    def tasks_holding(
        self, project: int, model_version: str, task_ids: Sequence[int], timeout_s: float | None = None
    ) -> set[int]:
        """Which of these tasks hold a prediction of this version. Raises StudioError, requests.Timeout."""
        holding: set[int] = set()
        for start in range(0, len(task_ids), _IDS_PER_QUESTION):
            ids = list(task_ids[start : start + _IDS_PER_QUESTION])
            selection = {
                "filters": {"conjunction": "and", "items": [holds(model_version)]},
                "selectedItems": {"all": False, "included": ids},
            }
            query = {
                "project": str(project),
                "page_size": str(len(ids)),
                "include": "id",
                "resolve_uri": "false",
                "query": json.dumps(selection, separators=(",", ":")),
            }
            tasks = self.call("GET", "/api/tasks/", "tasks", timeout_s or _READ_TIMEOUT_S, query=query)
            holding.update(int(task["id"]) for task in tasks)
        return holding

    def import_predictions(self, project: int, predictions: Sequence[Mapping[str, Any]]) -> int:
        """Store predictions, each with its `task`; the number that Label Studio took.

        Raises StudioRejectedError if all are rejected because of one, StudioRefusedError if the token may not do it,
        and StudioError or requests.Timeout if it isn't known whether they were stored.
        """
        path = f"/api/projects/{project}/import/predictions"
        return int(self.call("POST", path, "created", _IMPORT_TIMEOUT_S, body=predictions))

    def call(
        self,
        method: str,
        path: str,
        wanted: str | None,
        timeout_s: float,
        *,
        query: Mapping[str, str] | None = None,
        body: Any = None,
        files: Sequence[tuple[str, tuple[str, bytes]]] | None = None,
    ) -> Any:
        """What a call of the API answers, or its part under the key `wanted`. A token that has ended is renewed once.

        Raises StudioRejectedError with Label Studio's reason, StudioRefusedError, StudioError and requests.Timeout.
        """
        return self.perform(Call(method, path, query, body, files), wanted, timeout_s)

    def perform(self, call: Call, wanted: str | None, timeout_s: float) -> Any:
        """The same as `call`, for a Call."""
        answer = self._answer(call, timeout_s)
        raise_for_status(answer, self.url, call.path, self._token)
        # A login or a maintenance page in between may be a redirect, or even a 200.
        is_emptied = wanted is None and answer.status_code == requests.codes.no_content
        is_as_wanted = answer.json is not None if wanted is None else wanted in answer.body
        if answer.status_code not in _SUCCESSES or not (is_as_wanted or is_emptied):
            raise StudioError(explain_strange(answer, self.url, call.path), answer.detail)
        return answer.json if wanted is None else answer.body[wanted]

    def _answer(self, call: Call, timeout_s: float) -> Answer:
        authorization = self.authorization()
        answer = self.endpoint.send(call, time.monotonic() + timeout_s, authorization)
        if answer.status_code == requests.codes.unauthorized and self._token.is_personal:
            authorization = self.authorization(renew=True)
            answer = self.endpoint.send(call, time.monotonic() + timeout_s, authorization)
        return answer

    def _ask_templates(self) -> Any:
        return self.call("GET", "/api/templates", "templates", _OUTSIDE_TIMEOUT_S)
