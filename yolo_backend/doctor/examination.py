"""Tries all links in turn. What depends on a broken one isn't tried."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing

import requests

from yolo_backend.connecting.remote_backend import BackendError
from yolo_backend.doctor import backend_links, project_links
from yolo_backend.doctor.findings import BrokenLinkError, Finding, LinkState, NotTriedError, Observation, broken_by
from yolo_backend.doctor.installation import Installation
from yolo_backend.label_studio.errors import StudioError, explain
from yolo_backend.label_studio.projects import Project
from yolo_backend.label_studio.studio import Studio
from yolo_backend.serving.request import Predictor
from yolo_backend.settings import Settings

_LOOK = "Look whether Label Studio is well, and whether the token's user may do that."
_Link = Callable[[Installation], Iterator[Observation]]


def examine(
    settings: Settings,
    studio: Studio,
    *,
    find_project: Callable[[Studio], Project] | None = None,
    backend_url: str | None = None,
) -> Iterator[Finding]:
    """Try each link, and yield what is found. Nothing in Label Studio is changed.

    `find_project` opens the project; without it, the only one that the token shows is taken. `backend_url` is the
    backend's address from here and from Label Studio; without it, that of the only connected model is taken.
    """
    with closing(Predictor(settings)) as predictor:
        installation = Installation(settings, studio, predictor, find_project, backend_url)
        broken: set[str] = set()
        for check, needs, link in _links(is_backend_given=backend_url is not None):
            missing = [need for need in needs if need in broken]
            if missing:
                broken.add(check)
                yield Finding(check, LinkState.NOT_TRIED, f'it needs "{missing[0]}", above')
                continue
            for found in _try(link, installation):
                if found.state in {LinkState.WRONG, LinkState.NOT_TRIED}:
                    broken.add(check)
                yield Finding(check, found.state, found.detail, found.fix)


def _links(*, is_backend_given: bool) -> Sequence[tuple[str, Sequence[str], _Link]]:
    """The name of each link, the links that it needs, and what tries it."""
    backend_needs = () if is_backend_given else ("project",)
    return (
        ("Label Studio", (), project_links.label_studio),
        ("token", ("Label Studio",), project_links.token),
        ("project", ("token",), project_links.project),
        ("weights", (), project_links.weights),
        ("imports", ("project",), project_links.imports),
        ("labels", ("project", "weights"), project_links.labels),
        ("uploads", (), project_links.uploads),
        ("images", ("labels",), project_links.images),
        ("prediction", ("labels",), project_links.prediction),
        ("backend", backend_needs, backend_links.backend),
        ("model_version", ("labels", "backend"), backend_links.model_version),
        ("network guard", ("token", *backend_needs), backend_links.network_guard),
        ("model", ("project",), backend_links.model),
        ("webhook", ("backend", "model"), backend_links.webhook),
    )


def _try(link: _Link, installation: Installation) -> Iterator[Observation]:
    try:
        yield from link(installation)
    except NotTriedError as error:
        yield Observation(str(error), LinkState.NOT_TRIED)
    except (BrokenLinkError, BackendError) as error:
        yield Observation(str(error), LinkState.WRONG, error.fix)
    except StudioError as error:
        broken = broken_by(error, _LOOK)
        yield Observation(str(broken), LinkState.WRONG, broken.fix)
    except requests.Timeout as error:
        yield Observation(explain(error), LinkState.WRONG, _LOOK)
