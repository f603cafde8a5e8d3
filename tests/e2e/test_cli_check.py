"""`check` on the real Label Studio: all well, and what goes wrong in practice, each with its fix."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from tests.harness.command import run_command, run_process
from tests.harness.http_server import ServedFolder
from tests.harness.stack import (
    BackendServer,
    LabelStudioServer,
    backend_server,
    label_studio_server,
    pick_port,
    wait_until_ready,
)
from tests.harness.studio_client import StudioClient
from yolo_backend.cli.app import app
from yolo_backend.connecting.connect import class_names_of
from yolo_backend.connecting.remote_backend import RemoteBackend
from yolo_backend.doctor import project_links
from yolo_backend.label_studio.storing import QUICK_IMPORTS

LOGIN = {"BASIC_AUTH_USER": "yolo", "BASIC_AUTH_PASS": "open sesame"}
OTHER_LABELS = """
<View>
  <Image name="image" value="$image"/>
  <RectangleLabels name="label" toName="image"><Label value="wbc"/><Label value="Parasite"/></RectangleLabels>
</View>
"""

# Nothing to load, where it isn't about the weights or what needs them: a check is then quick.
NO_WEIGHTS = {"MODEL_NAME": "absent.pt"}

Findings = dict[str, list[dict[str, Any]]]
Check = Callable[..., tuple[int, Findings]]


@pytest.fixture(scope="module")
def project(
    client: StudioClient, bccd_files: list[Path], local_files: Path, image_server: ServedFolder, backend: BackendServer
) -> int:
    """A connected project with an image of each kind of storage."""
    content = bccd_files[0].read_bytes()
    for file in (local_files / "check" / "x.jpg", image_server.path / "check" / "x.jpg"):
        file.parent.mkdir(parents=True)
        file.write_bytes(content)
    project = client.create_project("Checked [bold]")
    folder = {"project": project, "path": str(local_files / "check"), "use_blob_urls": True}
    client.call("POST", "/api/storages/localfiles", json=folder)
    bucket = {
        "project": project,
        "bucket": "check",
        "aws_access_key_id": "key",
        "aws_secret_access_key": "secret",
        "s3_endpoint": image_server.url,
        "region_name": "eu-central-1",
        "presign": True,
    }
    client.call("POST", "/api/storages/s3", json=bucket)
    inline = "data:image/jpeg;base64," + base64.b64encode(content).decode()
    addresses = ["/data/local-files/?d=check/x.jpg", "s3://check/x.jpg", f"{image_server.url}/check/x.jpg", inline]
    client.upload(project, [bccd_files[0]])
    client.import_tasks(project, [{"data": {"image": address}} for address in addresses])
    client.connect(project, backend.url)
    return project


@pytest.fixture(scope="module")
def guarded_backend(command_environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a backend with a login, and with another threshold."""
    environment = {**command_environment, **LOGIN, "MODEL_SCORE_THRESHOLD": "0.4"}
    with backend_server(pick_port(0), environment, tmp_path_factory.mktemp("guarded") / "backend.log") as server:
        yield server.url


@pytest.fixture(scope="module")
def guarded_label_studio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LabelStudioServer]:
    """Label Studio with its network guard and without legacy tokens, as it is installed; and with quick imports."""
    environment = {"USE_DEFAULT_BANNED_SUBNETS": "true", QUICK_IMPORTS: "true"}
    with label_studio_server(tmp_path_factory.mktemp("guard") / "ls", pick_port(0), environment=environment) as server:
        yield server


def by_check(printed: str) -> Findings:
    """What `--json` printed, by the links."""
    findings: Findings = {}
    for finding in json.loads(printed):
        findings.setdefault(finding["check"], []).append(finding)
    return findings


@pytest.fixture
def checked(clean_environment: pytest.MonkeyPatch) -> Check:
    """Runs `check` in this process, with these settings and no others; its exit code and its findings."""

    def check(*arguments: Any, environment: dict[str, str]) -> tuple[int, Findings]:
        done = CliRunner().invoke(app, ["check", *map(str, arguments), "--json"], env=environment)
        assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
        return done.exit_code, by_check(done.stdout)

    return check


def snapshot(client: StudioClient, project: int) -> Any:
    """All that could be changed in a project."""
    return (
        client.call("GET", f"/api/projects/{project}/"),
        client.tasks(project),
        client.call("GET", "/api/webhooks/"),
        [model["id"] for model in client.call("GET", f"/api/ml/?project={project}")],
    )


@pytest.mark.parametrize("either_environment", ["personal access token", "legacy token"], indirect=True)
def test_all_is_well_and_nothing_is_changed(
    either_environment: dict[str, str],
    project: int,
    client: StudioClient,
    label_studio: LabelStudioServer,
    tmp_path: Path,
) -> None:
    before = snapshot(client, project)
    environment = either_environment | {"LABEL_STUDIO_MEDIA_ROOT": str(label_studio.media_root)}

    done = run_command("check", "--project", str(project), "--json", environment=environment, cwd=tmp_path)

    assert done.returncode == 0, done.stdout + done.stderr
    findings = by_check(done.stdout)
    assert {finding["state"] for found in findings.values() for finding in found} == {"ok"}
    kinds = [finding["detail"].partition(":")[0] for finding in findings["images"]]
    assert kinds == ["Local Files", "data", "http", "s3", "upload"]
    assert findings["uploads"][0]["detail"] == f"they are read from {label_studio.media_root}"
    assert findings["project"][0]["detail"] == f'{project} "Checked [bold]", 5 tasks'
    assert findings["webhook"][0]["detail"] == "the backend asks for no login"
    assert findings["backend"][1]["detail"] == (
        "Start Training: the class YoloBackend doesn't train; set TRAINING=on or override fit, see docs/training.md"
    )
    assert snapshot(client, project) == before
    assert list(tmp_path.iterdir()) == []


def test_people_read_ticks(command_environment: dict[str, str], project: int, tmp_path: Path) -> None:
    done = run_process("check", "-p", "Checked [bold]", environment=command_environment, cwd=tmp_path)

    assert done.returncode == 0
    lines = done.stdout.splitlines()
    assert all(line.startswith("✓") for line in lines)
    assert 'Checked [bold]", 5 tasks' in done.stdout
    assert command_environment["LABEL_STUDIO_API_KEY"] not in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("changes", "arguments", "check", "detail", "fix"),
    [
        (
            NO_WEIGHTS,
            ["--project", "987654"],
            "project",
            "shows the token's user no project 987654, but ",
            "Name a project",
        ),
        (NO_WEIGHTS, ["--project", "No such"], "project", 'No project is called "No such"', "Name one"),
        (
            NO_WEIGHTS | {"LABEL_STUDIO_API_KEY": "0" * 40},
            [],
            "token",
            "a legacy token. Label Studio refuses",
            "Make one",
        ),
        (NO_WEIGHTS, [], "weights", "absent.pt", "MODEL_ROOT"),
        ({"ALLOWED_IMAGE_HOSTS": ""}, [], "images", "http: task", "ALLOWED_IMAGE_HOSTS"),
        (
            NO_WEIGHTS,
            ["--backend-url", "http://yolo.invalid:9090"],
            "network guard",
            "Can't resolve hostname",
            "reaches it",
        ),
        (
            NO_WEIGHTS,
            ["--backend-url", f"http://127.0.0.1:{pick_port(0)}"],
            "backend",
            "no backend answers at",
            "Start it",
        ),
        (
            NO_WEIGHTS,
            ["--backend-url", f"http://127.0.0.1:{pick_port(0)}"],
            "model",
            "isn't connected to",
            "Connect Model",
        ),
        ({"MODEL_IOU_THRESHOLD": "0.5"}, [], "model_version", "the backend's model_version is", "the same settings"),
    ],
)
def test_what_is_wrong_is_told_with_its_fix(
    command_environment: dict[str, str],
    project: int,
    checked: Check,
    changes: dict[str, str],
    arguments: list[str],
    check: str,
    detail: str,
    fix: str,
) -> None:
    which = [] if "--project" in arguments else ["--project", project]

    code, findings = checked(*which, *arguments, environment=command_environment | changes)

    assert code == 1
    wrong = next(finding for finding in findings[check] if finding["state"] == "wrong")
    assert detail in wrong["detail"]
    assert fix in wrong["fix"]


def test_the_backends_address_is_not_label_studios(
    backend: BackendServer, command_environment: dict[str, str], checked: Check
) -> None:
    code, findings = checked("--url", backend.url, environment=command_environment)

    assert code == 1
    assert findings["Label Studio"][0]["detail"] == f"{backend.url} isn't Label Studio's address (404)"
    assert findings["weights"][0]["state"] == "ok"
    others = {finding["state"] for check in set(findings) - {"Label Studio", "weights"} for finding in findings[check]}
    assert others == {"not tried"}


def test_names_without_a_partner_are_remarked(
    client: StudioClient, command_environment: dict[str, str], checked: Check
) -> None:
    project = client.create_project("Other labels", OTHER_LABELS)

    _, findings = checked("-p", project, environment=command_environment)

    pairs = findings["labels"][0]
    assert pairs["state"] == "remark"
    assert "WBC → wbc above 0.25" in pairs["detail"]
    assert "Classes without a label: RBC, Platelets" in pairs["detail"]
    assert pairs["detail"].endswith("never predicted: Parasite")
    assert findings["images"][0]["detail"] == "the project has no tasks"
    assert findings["model"][0]["state"] == "wrong"


def test_labels_that_no_class_fits_are_wrong(
    client: StudioClient, command_environment: dict[str, str], checked: Check
) -> None:
    project = client.create_project("No label fits", OTHER_LABELS.replace("wbc", "Worm"))

    code, findings = checked("-p", project, environment=command_environment)

    assert code == 1
    assert "None of the labels Worm, Parasite is a class" in findings["labels"][0]["detail"]
    assert findings["images"][0]["state"] == "not tried"


def test_a_webhook_needs_the_backends_login(
    client: StudioClient, command_environment: dict[str, str], guarded_backend: str, checked: Check
) -> None:
    wait_until_ready_with_login(guarded_backend)
    project = client.create_project("A backend with a login")
    login = {"auth_method": "BASIC_AUTH", "basic_auth_user": "yolo", "basic_auth_pass": "open sesame"}
    client.call("POST", "/api/ml", json={"project": project, "url": guarded_backend, "title": "YOLO", **login})
    arguments = ["-p", project, "--backend-url", guarded_backend]

    _, unnamed = checked("-p", project, environment=command_environment | LOGIN | NO_WEIGHTS)
    _, missing = checked(*arguments, environment=command_environment | LOGIN)
    [webhook] = client.call("GET", f"/api/webhooks/?project={project}")
    headers = {"Authorization": f"Basic {base64.b64encode(b'yolo:open sesame').decode()}"}
    client.call("PATCH", f"/api/webhooks/{webhook['id']}/", json={"headers": headers})
    _, given = checked(*arguments, environment=command_environment | LOGIN | NO_WEIGHTS)

    assert "asks for a login" in unnamed["backend"][0]["detail"], "a login goes to a backend that was named only"
    assert missing["backend"][0]["state"] == "ok"
    assert missing["model_version"][0]["state"] == "wrong"
    assert missing["webhook"][0]["state"] == "wrong"
    assert "docs/extending.md" in missing["webhook"][0]["fix"]
    assert given["webhook"][0] == {
        "check": "webhook",
        "state": "ok",
        "detail": "it carries the backend's login",
        "fix": None,
    }
    assert "sesame" not in json.dumps([missing, given])


def test_a_model_that_label_studio_sees_as_down(
    client: StudioClient, command_environment: dict[str, str], checked: Check, tmp_path: Path
) -> None:
    url = f"http://127.0.0.1:{pick_port(0)}"
    project = client.create_project("A backend that went away")
    with backend_server(int(url.rpartition(":")[2]), command_environment, tmp_path / "logs" / "backend.log") as server:
        wait_until_ready(server.url)
        client.connect(project, url)

    code, findings = checked("-p", project, environment=command_environment | NO_WEIGHTS)

    assert code == 1
    assert findings["model"][0]["detail"].startswith(f'Label Studio sees "YOLO" at {url} as disconnected')
    assert "no backend answers" in findings["backend"][0]["detail"]
    assert findings["webhook"][0]["state"] == "not tried"


def test_the_network_guard_is_seen_without_a_trace(
    guarded_label_studio: LabelStudioServer,
    backend: BackendServer,
    checked: Check,
) -> None:
    token = guarded_label_studio.personal_access_token()
    client = StudioClient(guarded_label_studio.url, token)
    project = client.create_project("Behind the guard")
    environment = {**NO_WEIGHTS, "LABEL_STUDIO_URL": guarded_label_studio.url, "LABEL_STUDIO_API_KEY": token}
    legacy = environment | {"LABEL_STUDIO_API_KEY": guarded_label_studio.legacy_token}

    code, findings = checked("--backend-url", backend.url, environment=environment)
    legacy_code, legacy_findings = checked(environment=legacy)

    assert (code, legacy_code) == (1, 1)
    assert findings["project"][0]["detail"] == f'{project} "Behind the guard", 0 tasks', "the only one"
    assert "reserved network address" in findings["network guard"][0]["detail"]
    assert "USE_DEFAULT_BANNED_SUBNETS=false" in findings["network guard"][0]["fix"]
    assert client.call("GET", "/api/webhooks/") == []
    assert client.call("GET", f"/api/ml/?project={project}") == []
    assert "legacy tokens are disabled" in legacy_findings["token"][0]["detail"]
    assert "Personal Access Token" in legacy_findings["token"][0]["fix"]


def test_whether_imports_are_quick_is_seen_from_outside(
    label_studio: LabelStudioServer,
    guarded_label_studio: LabelStudioServer,
    checked: Check,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(project_links, "_MANY_PREDICTED", 1)
    states = {}
    for name, server, token in (
        ("off", label_studio, label_studio.personal_access_token()),
        ("unseen", label_studio, label_studio.legacy_token),
        ("on", guarded_label_studio, guarded_label_studio.personal_access_token()),
    ):
        client = StudioClient(server.url, server.personal_access_token())
        project = client.create_project(f"Imports {name}")
        client.import_tasks(
            project, [{"data": {"image": "x"}, "predictions": [{"result": [], "model_version": "old"}]}]
        )
        environment = {**NO_WEIGHTS, "LABEL_STUDIO_URL": server.url, "LABEL_STUDIO_API_KEY": token}
        _, findings = checked("-p", project, environment=environment)
        (states[name],) = findings["imports"]

    assert [finding["state"] for finding in states.values()] == ["remark", "remark", "ok"]
    assert states["off"]["detail"].endswith(f"unless Label Studio runs with {QUICK_IMPORTS}=true")
    assert states["unseen"]["detail"].endswith("can't be seen with this token")


def wait_until_ready_with_login(backend_url: str) -> None:
    class_names_of(RemoteBackend(backend_url, ("yolo", "open sesame")), timeout_s=60)
