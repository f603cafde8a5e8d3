"""The links between Label Studio and the backend: the backend itself, the network guard, the model, the webhook."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from yolo_backend.addresses import redact
from yolo_backend.doctor.findings import BrokenLinkError, LinkState, Observation
from yolo_backend.doctor.installation import TIMEOUT_S, Installation
from yolo_backend.label_studio.errors import StudioError, StudioRefusedError, StudioRejectedError

_CONNECT = "Connect it in Settings > Model > Connect Model, with the backend's address as Label Studio reaches it."
_OPEN_THE_GUARD = (
    "Start Label Studio with USE_DEFAULT_BANNED_SUBNETS=false, and ban all networks but the backend's again with "
    "USER_ADDITIONAL_BANNED_SUBNETS (docs/docker.md has the list)."
)
_REACHABLE = "Give the backend's address as Label Studio reaches it, in Settings > Model and as --backend-url."


def backend(it: Installation) -> Iterator[Observation]:
    """Tells whether this backend answers there, and is ready."""
    index = it.backend.index()
    state, reason = index.get("status"), index.get("reason")
    if state == "LOADING":
        raise BrokenLinkError(f"{it.backend.shown_url} is reading its weights still", "Check again in some seconds.")
    if state != "UP":
        raise BrokenLinkError(f"{it.backend.shown_url} can't predict: {reason}", "Do what it says, and see its log.")
    engine = index.get("engine")
    runs = f"{index.get('model')} on {index.get('device')} in {engine}" if engine else f"{index.get('model')}"
    yield Observation(f"{it.backend.shown_url} answers, version {index.get('version')}: {runs}")
    training = index.get("training")
    if isinstance(training, dict) and training.get("remark"):
        yield Observation(str(training["remark"]))


def model_version(it: Installation) -> Iterator[Observation]:
    """Tells whether the backend serves the project as it would be served from here."""
    there, here = it.backend.setup(it.project.sent_as, it.project.label_config), it.plan.model_version
    if there != here:
        raise BrokenLinkError(
            f"the backend's model_version is {there}, this command's is {here}: each would repeat the other's work",
            "Give both the same weights and the same settings: MODEL_NAME, MODEL_ROOT, MODEL_DIR and the other "
            "MODEL_ ones, DECODE, LABEL_STUDIO_URL. With Docker Compose they stand in .env, because what stands "
            "before a command holds for that command only.",
        )
    yield Observation(f"{there}, there as here")


def network_guard(it: Installation) -> Iterator[Observation]:
    """Tells whether Label Studio's guard lets it connect to the backend's address.

    Label Studio is asked for a connection that it can't make, because other fields are invalid. Either it says so, or
    the guard does.
    """
    url = it.backend.url.rstrip("/")
    attempts: tuple[tuple[str, dict[str, Any]], ...] = (
        ("/api/ml/", {"url": url, "timeout": "none", "is_interactive": "none"}),
        ("/api/webhooks/", {"url": f"{url}/webhook", "is_active": "none", "actions": ["none"]}),
    )
    for path, impossible in attempts:
        try:
            it.studio.call("POST", path, None, TIMEOUT_S, body=impossible)
        except StudioRejectedError as error:
            if not error.reason:  # this isn't Label Studio's answer
                raise
            continue
        except StudioRefusedError as error:
            if not error.reason or "permission" in error.reason:  # this isn't Label Studio's answer, or not the guard's
                raise
            raise BrokenLinkError(f"it refuses {it.backend.shown_url}: {error.reason}", _OPEN_THE_GUARD) from None
        except StudioError as error:
            if "resolve" not in error.reason:
                raise
            raise BrokenLinkError(f"Label Studio says: {error.reason}", _REACHABLE) from None
    yield Observation(f"it lets Label Studio connect to {it.backend.shown_url}")


def model(it: Installation) -> Iterator[Observation]:
    """Tells whether the backend is connected to the project, and is up in Label Studio's eyes."""
    url = it.given_backend_url
    meant = [item for item in it.connected_models if url is None or str(item["url"]).rstrip("/") == url]
    if not meant:
        others = ", ".join(redact(item["url"]) for item in it.connected_models)
        found = f"{redact(url)} isn't connected to the project, but {others}" if others else "none is connected"
        raise BrokenLinkError(found, _CONNECT)
    for item in meant:
        name = f'"{item.get("title")}" at {redact(item["url"])}'
        if item.get("state") in {"DI", "ER"}:
            reason = f": {item['error_message']}" if item.get("error_message") else ""
            yield Observation(
                f"Label Studio sees {name} as {str(item.get('readable_state')).lower()}{reason}",
                LinkState.WRONG,
                f"{_REACHABLE} Where the backend asks for a login, the model there needs it too.",
            )
        else:
            yield Observation(f"Label Studio sees {name} as {str(item.get('readable_state')).lower()}")


def webhook(it: Installation) -> Iterator[Observation]:
    """Tells whether the project's webhook carries the backend's login."""
    url = f"{it.backend.url.rstrip('/')}/webhook"
    webhooks = it.studio.call("GET", "/api/webhooks/", None, TIMEOUT_S, query={"project": str(it.project.id)})
    meant = next((item for item in webhooks if str(item["url"]).rstrip("/") == url), None)
    if meant is None or not meant.get("is_active", True):
        lack = "no webhook leads to the backend" if meant is None else "the webhook is switched off"
        yield Observation(
            f"{lack}: a `fit` of your own wouldn't be called",
            LinkState.REMARK,
            "If you have a `fit`, add or enable the webhook in Settings > Webhooks; Label Studio adds none for a host "
            "name without a dot, such as ml-backend.",
        )
    elif it.backend.lets_in(None):
        yield Observation("the backend asks for no login")
    elif it.backend.lets_in(_authorization(meant.get("headers"))):
        yield Observation("it carries the backend's login")
    else:
        raise BrokenLinkError(
            "it carries no login that the backend accepts, so a `fit` is never called",
            "Add the header Authorization to it in Settings > Webhooks; docs/extending.md has its value.",
        )


def _authorization(headers: Any) -> str | None:
    given = headers.items() if isinstance(headers, dict) else ()
    return next((str(value) for name, value in given if str(name).lower() == "authorization"), None)
