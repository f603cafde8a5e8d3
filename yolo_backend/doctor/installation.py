"""What several links need to know of Label Studio, the project and the backend: asked for once."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any

from yolo_backend.connecting.remote_backend import RemoteBackend
from yolo_backend.doctor.findings import NotTriedError
from yolo_backend.images.uploads import FolderOfUploads
from yolo_backend.label_studio.projects import Project, open_project, projects_of
from yolo_backend.label_studio.studio import Studio
from yolo_backend.labels.plans import ProjectPlan
from yolo_backend.messages import Trouble
from yolo_backend.protocol import Prediction
from yolo_backend.serving.request import Predictor
from yolo_backend.settings import Settings

TIMEOUT_S = 30.0
_SHOWN_PROJECTS = 5


class Installation:
    """A Label Studio, perhaps one of its projects, and perhaps a backend. Answers are kept, failures aren't."""

    def __init__(
        self,
        settings: Settings,
        studio: Studio,
        predictor: Predictor,
        find_project: Callable[[Studio], Project] | None,
        backend_url: str | None,
    ) -> None:
        self.settings = settings
        self.studio = studio
        self.predictor = predictor
        self.given_backend_url = backend_url.rstrip("/") if backend_url else None
        self.predictions: list[Prediction] = []
        self._find_project = find_project

    @cached_property
    def project(self) -> Project:
        """The project that was named, or the only one. Raises NotTriedError, and what finding it raises."""
        if self._find_project:
            return self._find_project(self.studio)
        projects = projects_of(self.studio)
        if len(projects) == 1:
            return open_project(self.studio, int(projects[0]["id"]))
        shown = ", ".join(f'{project["id"]} "{project["title"]}"' for project in projects[:_SHOWN_PROJECTS])
        more = ", ..." if len(projects) > _SHOWN_PROJECTS else ""
        raise NotTriedError(f"name one with --project: {shown}{more}" if projects else "there is none yet")

    @cached_property
    def plan(self) -> ProjectPlan:
        """How the project's labeling config is served. Raises LabelingConfigError, WeightsError."""
        return self.predictor.plan(self.project.label_config, None, project=self.project.sent_as)

    @cached_property
    def uploads_trouble(self) -> Trouble | None:
        """Why uploads can't be read from the disk; None if they can, or if no folder is named."""
        root = self.settings.label_studio_media_root
        return FolderOfUploads(root).trouble() if root else None

    @cached_property
    def connected_models(self) -> list[dict[str, Any]]:
        """The models that are connected to the project. Label Studio asks each for its state, as for its own page."""
        query = {"project": str(self.project.id)}
        return list(self.studio.call("GET", "/api/ml/", None, TIMEOUT_S, query=query))

    @cached_property
    def backend(self) -> RemoteBackend:
        """The backend that was named, or the only connected model's. Raises NotTriedError."""
        if self.given_backend_url:
            return RemoteBackend(self.given_backend_url, self.settings.basic_auth)
        if len(self.connected_models) != 1:
            count = f"{len(self.connected_models)} models are" if self.connected_models else "no model is"
            raise NotTriedError(f"name the backend with --backend-url: {count} connected to the project")
        # This address is from somebody who may edit the project, so our login doesn't go there.
        return RemoteBackend(str(self.connected_models[0]["url"]))
