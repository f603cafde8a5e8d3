"""Docker: what `docker compose up` promises, as far as it can be told without an engine."""

from __future__ import annotations

import ipaddress
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import AliasChoices

from tests.harness.command import run_command
from tests.harness.stack import ROOT, pick_port
from yolo_backend.connecting.connect import class_names_of
from yolo_backend.connecting.remote_backend import RemoteBackend
from yolo_backend.label_studio.storing import QUICK_IMPORTS
from yolo_backend.settings import Settings

_LABEL_STUDIO_PYTHON = ROOT / ".venv-label-studio" / "bin" / "python"

# Set by the image, or a path of the machine, which is of no use in a container that it isn't mounted into.
_SETTINGS_OF_THE_IMAGE = {
    "MODEL_CLASS", "MODEL_ROOT", "MODEL_DIR", "PORT", "LOCAL_FILES_DOCUMENT_ROOT", "REQUESTS_CA_BUNDLE"
}  # fmt: skip

# Runs in Label Studio's own Python: which addresses does its guard refuse, and what is its own list?
_ASK_THE_GUARD = """
import json, os, sys
from pathlib import Path
import label_studio
sys.path.insert(0, str(Path(label_studio.__file__).parent))
os.environ["DJANGO_SETTINGS_MODULE"] = "core.settings.label_studio"
from core.utils.exceptions import SsrfBlockedUrlError
from core.utils.io import validate_ip

def refuses(address):
    try:
        validate_ip(address)
    except SsrfBlockedUrlError:
        return True
    return False

constants = validate_ip.__code__.co_consts
own_list = next(value for value in constants if isinstance(value, tuple) and "127.0.0.0/8" in value)
refused = {address: refuses(address) for address in json.load(sys.stdin)}
print("ANSWER", json.dumps({"own_list": own_list, "refused": refused}))
"""


def read_yaml(name: str) -> dict[str, Any]:
    loaded = yaml.safe_load((ROOT / name).read_text())
    assert isinstance(loaded, dict)
    return loaded


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    return read_yaml("docker-compose.yml")


@pytest.fixture(scope="module")
def dockerfile() -> str:
    return (ROOT / "Dockerfile").read_text()


def with_values(text: str, values: Mapping[str, str]) -> str:
    """Compose's `${NAME:-default}`, also one within another, where these variables are set."""
    while (once := re.sub(r"\$\{(\w+):-([^${}]*)\}", lambda found: values.get(found[1]) or found[2], text)) != text:
        text = once
    return text


def with_defaults(text: str) -> str:
    """The same where no variable is set."""
    return with_values(text, {})


def environment_of(compose: dict[str, Any], service: str, values: Mapping[str, str] | None = None) -> dict[str, str]:
    """What Compose sets in the container, where these variables are set; a variable without a value is passed on."""
    values = values or {}
    named = compose["services"][service]["environment"].items()
    passed_on = {name: values[name] for name, value in named if value is None and name in values}
    return passed_on | {name: with_values(value, values) for name, value in named if value is not None}


def variables_of_settings() -> set[str]:
    """The first name of each setting."""
    aliases = [field.validation_alias for field in Settings.model_fields.values()]
    return {str(alias.choices[0] if isinstance(alias, AliasChoices) else alias) for alias in aliases}


def test_ports_are_published_on_loopback_only(compose: dict[str, Any]) -> None:
    ports = [port for service in compose["services"].values() for port in service.get("ports", [])]

    assert len(ports) == 2
    assert all(str(port).startswith("127.0.0.1:") for port in ports)


def test_every_image_is_pinned(compose: dict[str, Any], dockerfile: str) -> None:
    images = [service["image"] for service in compose["services"].values()]
    images += re.findall(r"^FROM (\S+)", dockerfile, re.MULTILINE)

    assert len(images) == 7
    assert all(re.search(r":(?!latest$)[\w.-]+$", image) for image in images), images


def test_label_studio_is_the_version_of_the_tests(compose: dict[str, Any]) -> None:
    tested = re.search(r"^label-studio==(\S+)$", (ROOT / "requirements-label-studio.txt").read_text(), re.MULTILINE)

    assert tested is not None
    for service in ("label-studio", "media"):
        assert compose["services"][service]["image"] == f"heartexlabs/label-studio:{tested[1]}"


def test_services_come_back_and_wait_for_each_other(compose: dict[str, Any], dockerfile: str) -> None:
    services = compose["services"]

    assert services["label-studio"]["restart"] == "unless-stopped"
    assert services["ml-backend"]["restart"] == "unless-stopped"
    assert services["connect"]["restart"].startswith("on-failure"), "it would start again for ever"
    assert services["connect"]["depends_on"] == ["label-studio", "ml-backend"], "it waits by itself, and says for what"
    assert "HEALTHCHECK" in dockerfile
    assert "healthcheck" in services["label-studio"]
    assert services["connect"]["healthcheck"] == {"disable": True}, "it would ask for a server that it doesn't run"


def test_everyone_knows_the_same_token(compose: dict[str, Any]) -> None:
    token = environment_of(compose, "label-studio")["LABEL_STUDIO_USER_TOKEN"]

    assert re.fullmatch("[0-9a-f]{40}", token)
    assert environment_of(compose, "ml-backend")["LABEL_STUDIO_API_KEY"] == token
    assert environment_of(compose, "connect")["LABEL_STUDIO_API_KEY"] == token


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"LABEL_STUDIO_API_KEY": "made-later"}, "made-later"),
        ({"LABEL_STUDIO_USER_TOKEN": "0" * 40}, "0" * 40),
        ({"LABEL_STUDIO_USER_TOKEN": "0" * 40, "LABEL_STUDIO_API_KEY": "made-later"}, "made-later"),
        ({"LABEL_STUDIO_USER_TOKEN": "0" * 40, "LABEL_STUDIO_API_KEY": ""}, "0" * 40),
    ],
)
def test_a_token_that_was_made_later_is_the_backends(
    compose: dict[str, Any], values: dict[str, str], expected: str
) -> None:
    for service in ("ml-backend", "train", "connect"):
        assert environment_of(compose, service, values)["LABEL_STUDIO_API_KEY"] == expected
    first = values.get("LABEL_STUDIO_USER_TOKEN", environment_of(compose, "label-studio")["LABEL_STUDIO_USER_TOKEN"])
    assert environment_of(compose, "label-studio", values)["LABEL_STUDIO_USER_TOKEN"] == first


def test_our_own_image_is_asked_of_no_registry(compose: dict[str, Any]) -> None:
    own = [service for service in compose["services"].values() if service["image"] == "yolo-backend:local"]

    assert len(own) == 3
    assert {service["pull_policy"] for service in own} == {"never"}
    assert [service["build"]["context"] for service in own if "build" in service] == ["."], "but it is built"


def test_everyone_hears_that_it_should_stop_and_no_log_grows_for_ever(compose: dict[str, Any]) -> None:
    for name, service in compose["services"].items():
        assert service["init"] is True, name
        assert service["logging"]["driver"] == "local", name
        assert set(service["logging"]["options"]) == {"max-size", "max-file"}, name


def test_label_studio_asks_nobody_outside(compose: dict[str, Any]) -> None:
    environment = environment_of(compose, "label-studio")

    assert environment["LATEST_VERSION_CHECK"] == "false"
    assert environment["COLLECT_ANALYTICS"] == "false"


def test_health_checks_bear_a_busy_machine(compose: dict[str, Any], dockerfile: str) -> None:
    """Python alone takes seconds to start there, and who asks must give up before Docker does."""
    [allowed] = re.findall(r"HEALTHCHECK .*--timeout=(\d+)s", dockerfile)
    checks = [
        (int(allowed), dockerfile),
        (int(compose["services"]["label-studio"]["healthcheck"]["timeout"][:-1]), str(compose["services"])),
    ]

    for timeout_s, text in checks:
        [asking_s] = re.findall(r"/health', timeout=(\d+)|9090\), timeout=(\d+)", text)
        assert 10 < int("".join(asking_s)) < timeout_s


def test_own_weights_stay_out_of_the_repository() -> None:
    """docs/docker.md says WEIGHTS=./weights."""
    assert "WEIGHTS=./weights" in (ROOT / "docs" / "docker.md").read_text()
    assert "/weights/" in (ROOT / ".gitignore").read_text().splitlines()


def test_a_known_token_is_of_no_use_to_other_web_pages(compose: dict[str, Any]) -> None:
    environment = environment_of(compose, "label-studio")

    assert environment["CORS_ALLOW_ALL_ORIGINS"] == "false"
    assert "*" not in environment["ALLOWED_HOSTS"]
    assert "label-studio" in environment["ALLOWED_HOSTS"].split(","), "the backend calls it so"


def test_imports_into_projects_with_predictions_are_quick(compose: dict[str, Any]) -> None:
    assert environment_of(compose, "label-studio")[QUICK_IMPORTS] == "true"


def test_data_and_weights_outlive_the_containers(compose: dict[str, Any], dockerfile: str) -> None:
    mounts = {
        (service, source, target)
        for service, settings in compose["services"].items()
        for source, target, _ in (mounts_of(compose, service) if "volumes" in settings else ())
    }
    folders = dict(re.findall(r"(MODEL_ROOT|MODEL_DIR)=(\S+)", dockerfile))

    assert {source for _, source, _ in mounts} == set(compose["volumes"])
    assert ("media", "media", "/new") in mounts, "where uploads of before are copied to"
    assert {target for _, _, target in mounts - {("media", "media", "/new")}} == {
        "/label-studio/data",
        "/label-studio/data/media",
        environment_of(compose, "ml-backend")["LABEL_STUDIO_MEDIA_ROOT"],
        folders["MODEL_ROOT"],
        folders["MODEL_DIR"],
    }


def mounts_of(compose: dict[str, Any], service: str) -> set[tuple[str, str, bool]]:
    """A service's volumes, where they are, and whether it may write to them."""
    mounts = [with_defaults(mount).split(":") for mount in compose["services"][service]["volumes"]]
    return {(source, target, "ro" not in options) for source, target, *options in mounts}


def test_the_backend_reads_uploads_and_sees_neither_database_nor_key(compose: dict[str, Any]) -> None:
    mine = mounts_of(compose, "ml-backend")
    assert ("media", environment_of(compose, "ml-backend")["LABEL_STUDIO_MEDIA_ROOT"], False) in mine
    assert "label-studio" not in {source for source, *_ in mine}
    assert mounts_of(compose, "label-studio") == {
        ("label-studio", "/label-studio/data", True),
        ("media", "/label-studio/data/media", True),
    }
    assert "depends_on" not in compose["services"]["ml-backend"], "it never needs the folder"


# What the service `media` does, with the folders of a test in the place of its volumes.


@pytest.fixture
def make_volume(compose: dict[str, Any], tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs it as Compose does on the volumes `data` and `new` of this folder, after the words of a command if given."""
    if sys.platform != "linux":
        pytest.skip("what the service runs is Linux's, as are setpriv and prlimit")
    service = compose["services"]["media"]
    assert mounts_of(compose, "media") == {("label-studio", "/label-studio/data", False), ("media", "/new", True)}
    assert compose["services"]["label-studio"]["depends_on"] == {
        "media": {"condition": "service_completed_successfully"}
    }
    assert "restart" not in service
    (command,) = service["command"]
    script = (
        command.replace("$$", "$").replace("/label-studio/data", f"{tmp_path}/data").replace("/new", f"{tmp_path}/new")
    )
    for volume in ("data", "new"):
        (tmp_path / volume).mkdir()

    # A root that may do no more than its container's.
    granted = ",".join(f"+{name.lower()}" for name in service["cap_add"])
    confined = ["setpriv", f"--bounding-set=-all,{granted}", "--no-new-privs"] if os.geteuid() == 0 else []

    def run(*before: str) -> subprocess.CompletedProcess[str]:
        command = [*before, *confined, *service["entrypoint"], script]
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)

    return run


def tree(folder: Path) -> dict[str, bytes | None]:
    """Each file and folder, with what is in it."""
    return {
        path.relative_to(folder).as_posix(): None if path.is_dir() else path.read_bytes()
        for path in sorted(folder.rglob("*"))
    }


def test_the_volume_of_a_first_start_is_label_studios_to_write(
    make_volume: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    if os.geteuid() == 0:
        os.chown(tmp_path / "data", 1001, 0)
    (tmp_path / "data").chmod(0o770)
    done = make_volume()
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    data, new = (tmp_path / "data").stat(), (tmp_path / "new").stat()
    assert (new.st_uid, new.st_gid) == (data.st_uid, data.st_gid)
    assert oct(new.st_mode & 0o777) == "0o775", "and the backend's to read, which is another user"
    assert tree(tmp_path / "new") == {}


def test_uploads_of_before_are_copied_once_and_none_is_lost(
    make_volume: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    old, new = tmp_path / "data" / "media", tmp_path / "new"
    (old / "upload" / "1").mkdir(parents=True)
    (old / "upload" / "1" / "0123abcd-a b.jpg").write_bytes(b"a")
    (old / "export").mkdir()
    (tmp_path / "data" / "label_studio.sqlite3").write_bytes(b"database")
    before = tree(tmp_path / "data")
    (new / ".copying" / "1").mkdir(parents=True)  # a copy that was broken off
    (new / ".copying" / "1" / "half").write_bytes(b"")

    assert make_volume().returncode == 0
    assert tree(new) == tree(old)
    (new / "upload" / "1" / "0123abcd-a b.jpg").unlink()  # deleted by hand since then; Label Studio deletes none
    (new / "upload" / "1" / "0123abcd-c.jpg").write_bytes(b"c")
    now = tree(new)
    assert make_volume().returncode == 0
    assert tree(new) == now
    assert tree(tmp_path / "data") == before


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make files of other users")
def test_what_is_copied_keeps_its_owner_and_mode(
    make_volume: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    def rights(path: Path) -> tuple[int, int, int, int]:
        found = path.stat()
        return found.st_uid, found.st_gid, found.st_mode, found.st_mtime_ns

    old, new = tmp_path / "data" / "media", tmp_path / "new"
    names = ("upload", "upload/1", "upload/1/0123abcd-a.jpg")
    (old / "upload" / "1").mkdir(parents=True)
    (old / names[-1]).write_bytes(b"a")
    for name, mode in zip(names, (0o755, 0o2770, 0o600), strict=True):
        os.chown(old / name, 1001, 1002)
        (old / name).chmod(mode)
    done = make_volume()
    assert (done.returncode, done.stderr) == (0, "")
    assert [rights(new / name) for name in names] == [rights(old / name) for name in names]


def test_a_copy_that_fails_half_way_leaves_nothing_and_begins_anew(
    make_volume: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    old, new = tmp_path / "data" / "media", tmp_path / "new"
    (old / "upload").mkdir(parents=True)
    for name in "abc":
        (old / "upload" / name).write_bytes(name.encode() * 10_000)
    done = make_volume("prlimit", "--fsize=5000", "--core=0")  # bytes in a file; a full disk fails at the same place
    assert done.returncode == 1
    assert "Label Studio isn't started" in done.stderr
    assert tree(new) == {}, "what fills the disk would stay there"

    assert make_volume().returncode == 0
    assert tree(new) == tree(old)


def test_what_cannot_be_copied_keeps_label_studio_from_starting(
    make_volume: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    old, new = tmp_path / "data" / "media", tmp_path / "new"
    (old / "upload").mkdir(parents=True)
    (old / "upload" / "a").write_bytes(b"a")
    new.rmdir()  # as where the disk is full
    new.write_bytes(b"")
    done = make_volume()
    assert done.returncode != 0
    assert "Label Studio isn't started" in done.stderr
    assert tree(old) == {"upload": None, "upload/a": b"a"}


@pytest.mark.parametrize("target", ["nowhere", "elsewhere"])
def test_a_link_in_the_place_of_uploads_is_told(
    make_volume: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path, target: str
) -> None:
    """Its target is on a disk that this service may not have, and the uploads on it would be shown as missing."""
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "data" / "media" / "export").mkdir(parents=True)  # which comes first, and isn't copied either
    (tmp_path / "data" / "media" / "upload").symlink_to(tmp_path / target)
    done = make_volume()
    assert done.returncode == 1
    assert "upload is a symbolic link, so Label Studio isn't started" in done.stderr
    assert tree(tmp_path / "new") == {}


def test_every_setting_of_the_backend_can_be_set(compose: dict[str, Any]) -> None:
    of_commands = {"BACKEND_URL"}

    assert set(compose["services"]["ml-backend"]["environment"]) == (
        variables_of_settings() - _SETTINGS_OF_THE_IMAGE | of_commands
    )
    set_by_compose = {"LABEL_STUDIO_URL", "LABEL_STUDIO_MEDIA_ROOT", "BACKEND_URL"}
    values = dict.fromkeys(variables_of_settings(), "mine")
    mine = {name for name, value in environment_of(compose, "ml-backend", values).items() if value == "mine"}
    assert mine == set(compose["services"]["ml-backend"]["environment"]) - set_by_compose


def test_what_connects_says_what_is_wrong_with_a_setting(compose: dict[str, Any], tmp_path: Path) -> None:
    environment = environment_of(compose, "connect", {"MODEL_IOU_THRESHOLD": "half"})

    done = run_command("connect", environment=environment, cwd=tmp_path)

    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("MODEL_IOU_THRESHOLD: ")
    assert done.stderr.endswith(", not 'half'\n")


def test_the_backend_and_what_connects_it_mean_the_same_backend(compose: dict[str, Any]) -> None:
    addresses = {environment_of(compose, service)["BACKEND_URL"] for service in ("ml-backend", "connect")}

    assert addresses == {f"http://ml-backend:{Settings.model_fields['port'].default}"}


def test_the_backend_starts_with_what_compose_sets(compose: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    for variable, value in environment_of(compose, "ml-backend").items():
        monkeypatch.setenv(variable, value)

    assert Settings(_env_file=None).label_studio_url == "http://label-studio:8080"  # type: ignore[call-arg]


def test_the_port_is_the_same_everywhere(compose: dict[str, Any], dockerfile: str) -> None:
    port = str(Settings.model_fields["port"].default)

    assert f"EXPOSE {port}" in dockerfile
    assert f"PORT={port}" in dockerfile
    assert compose["services"]["ml-backend"]["ports"][0].endswith(f":{port}")


def test_the_image_runs_as_a_plain_user_and_calls_nobody(dockerfile: str) -> None:
    last_stage = dockerfile.rpartition("\nFROM ")[2]

    assert re.search(r"^USER [1-9]\d*:[1-9]\d*$", last_stage, re.MULTILINE)
    assert "YOLO_OFFLINE=true" in last_stage
    assert "YOLO_AUTOINSTALL=false" in last_stage
    assert not re.search(r"apt-get|pip install", last_stage), "what builds belongs to the first stage"


def test_the_image_gets_all_that_it_copies_and_no_secrets(dockerfile: str) -> None:
    ignore = (ROOT / ".dockerignore").read_text().splitlines()
    let_through = {line.removeprefix("!") for line in ignore if line.startswith("!")}
    copied = {
        name for names in re.findall(r"^COPY (?!--from)(.+) \S+$", dockerfile, re.MULTILINE) for name in names.split()
    }

    assert "*" in ignore
    assert let_through == copied
    assert all((ROOT / name).exists() for name in copied)


def test_a_command_finds_an_address_while_the_server_is_up(compose: dict[str, Any]) -> None:
    """`docker compose run` starts a second container of the service: two can't have one fixed address."""
    assert "ipv4_address" not in str(compose["services"]["ml-backend"])


def entry_of(dockerfile: str) -> tuple[list[str], list[str]]:
    """The image's entry, and the arguments where none are given."""
    found = [re.search(rf"^{word} (\[.*\])$", dockerfile, re.MULTILINE) for word in ("ENTRYPOINT", "CMD")]
    entry, arguments = (json.loads(line[1]) for line in found if line)
    return entry, arguments


@pytest.fixture
def app_folder(dockerfile: str, tmp_path: Path) -> Path:
    """What the image has of the repository."""
    folder = tmp_path / "app"
    folder.mkdir()
    last_stage = dockerfile.rpartition("\nFROM ")[2]
    for names in re.findall(r"^COPY (?!--from)(.+) \S+$", last_stage, re.MULTILINE):
        for name in names.split():
            source = ROOT / name
            if source.is_dir():
                shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(source, folder)
    return folder


def all_files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if "__pycache__" not in path.parts)


def test_the_image_serves_until_it_is_told_to_stop(
    dockerfile: str, app_folder: Path, bccd_environment: dict[str, str]
) -> None:
    entry, arguments = entry_of(dockerfile)
    before = all_files(app_folder), all_files(ROOT / "yolo_backend")
    port = pick_port(0)
    environment = {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "HOME": str(app_folder.parent),
        "PYTHONDONTWRITEBYTECODE": "1",
        "MODEL_CLASS": re.findall(r"MODEL_CLASS=(\S+)", dockerfile)[-1],
        "PORT": str(port),
    }

    with subprocess.Popen([*entry, *arguments], cwd=app_folder, env=environment | bccd_environment) as server:
        try:
            class_names_of(RemoteBackend(f"http://127.0.0.1:{port}"), timeout_s=60)
        finally:
            server.send_signal(signal.SIGTERM)  # to the process that was started, as Docker does
            stopped = server.wait(60)

    assert stopped == 0
    after = all_files(app_folder), all_files(ROOT / "yolo_backend")
    assert after == before, "the container's file system is read-only"


@pytest.mark.parametrize("service", ["ml-backend", "connect"])
def test_each_service_runs_a_command_that_exists(compose: dict[str, Any], dockerfile: str, service: str) -> None:
    entry, arguments = entry_of(dockerfile)
    command, *_ = compose["services"][service].get("command", arguments)

    done = subprocess.run(
        [Path(sys.executable).with_name(entry[0]), *entry[1:], command, "--help"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert done.returncode == 0, done.stderr


def test_the_gpu_file_adds_to_a_service_that_exists(compose: dict[str, Any]) -> None:
    override = read_yaml("docker-compose.gpu.yml")

    assert set(override["services"]) <= set(compose["services"])
    [device] = override["services"]["ml-backend"]["deploy"]["resources"]["reservations"]["devices"]
    assert device["driver"] == "nvidia"
    assert device["capabilities"] == ["gpu"]


# The ranges that are reserved for documentation, by what they begin with.
_PREFIXES = ("192.0.2", "198.51.100", "203.0.113")


def network_of(compose: dict[str, Any], values: Mapping[str, str]) -> dict[str, str]:
    """Its subnet, the range that Docker gives addresses of, its gateway, and Label Studio's address."""
    [network] = compose["networks"]["default"]["ipam"]["config"]
    label_studio = compose["services"]["label-studio"]["networks"]["default"]["ipv4_address"]
    return {name: with_values(value, values) for name, value in {**network, "label_studio": label_studio}.items()}


def test_a_second_stack_takes_another_network(compose: dict[str, Any]) -> None:
    networks = [network_of(compose, {"NETWORK_PREFIX": prefix}) for prefix in _PREFIXES]

    assert [network["subnet"] for network in networks] == [f"{prefix}.0/24" for prefix in _PREFIXES]
    assert network_of(compose, {}) == networks[1]
    for network in networks:
        subnet, given_out = (ipaddress.ip_network(network[name]) for name in ("subnet", "ip_range"))
        assert [*subnet.subnets()][1] == given_out
        for fixed in (network["gateway"], network["label_studio"]):
            assert ipaddress.ip_address(fixed) in subnet
            assert ipaddress.ip_address(fixed) not in given_out


@pytest.mark.skipif(not _LABEL_STUDIO_PYTHON.exists(), reason="needs .venv-label-studio (make test makes it)")
def test_the_guard_lets_the_backend_through_and_nothing_else(compose: dict[str, Any], tmp_path: Path) -> None:
    networks = [network_of(compose, {"NETWORK_PREFIX": prefix}) for prefix in _PREFIXES]
    backends, others = [], []
    for network in networks:
        open_half = ipaddress.ip_network(network["ip_range"])
        closed_half = next(half for half in ipaddress.ip_network(network["subnet"]).subnets() if half != open_half)
        backends += [str(open_half[0]), str(open_half[-1])]
        others += [network["gateway"], network["label_studio"], str(closed_half[0]), str(closed_half[-1])]
    others += [
        "169.254.169.254",
        "127.0.0.1",
        "10.1.2.3",
        "172.17.0.1",
        "192.168.1.1",
        "100.100.100.200",
        "::1",
        "fd00::1",
    ]

    answer = ask_the_guard([*backends, *others], environment_of(compose, "label-studio"), tmp_path)

    assert answer["refused"] == dict.fromkeys(backends, False) | dict.fromkeys(others, True)
    banned = set(environment_of(compose, "label-studio")["USER_ADDITIONAL_BANNED_SUBNETS"].split(","))
    # Label Studio's own list, with the half that is closed in the place of each whole network.
    whole = {network["subnet"] for network in networks}
    assert whole <= set(answer["own_list"])
    assert banned == set(answer["own_list"]) - whole | {subnet.replace("/24", "/25") for subnet in whole}


@pytest.mark.skipif(not _LABEL_STUDIO_PYTHON.exists(), reason="needs .venv-label-studio (make test makes it)")
def test_without_the_switch_the_guard_refuses_the_backend(compose: dict[str, Any], tmp_path: Path) -> None:
    """Should Label Studio ever stop that, the switch can go."""
    backends = [
        str(ipaddress.ip_network(network_of(compose, {"NETWORK_PREFIX": prefix})["ip_range"])[0])
        for prefix in _PREFIXES
    ]

    assert ask_the_guard(backends, {}, tmp_path)["refused"] == dict.fromkeys(backends, True)


def ask_the_guard(addresses: list[str], environment: dict[str, str], data_dir: Path) -> dict[str, Any]:
    completed = subprocess.run(
        [_LABEL_STUDIO_PYTHON, "-c", _ASK_THE_GUARD],
        input=json.dumps(addresses),
        env={"PATH": os.environ["PATH"], "HOME": str(data_dir), "LABEL_STUDIO_BASE_DATA_DIR": str(data_dir)}
        | environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    answer = json.loads(completed.stdout.rpartition("ANSWER ")[2])
    assert isinstance(answer, dict)
    return answer


def test_what_trains_beside_the_server_is_set_up_as_it_and_gives_way(compose: dict[str, Any]) -> None:
    server, train = compose["services"]["ml-backend"], compose["services"]["train"]
    assert train["environment"] == server["environment"]
    assert train["volumes"] == server["volumes"]
    assert train["cpu_shares"] == 2
    assert train["entrypoint"] == ["yolo-backend", "train"]
    assert train["profiles"] == ["train"], "docker compose up doesn't start it"
    assert environment_of(compose, "ml-backend")["TRAINING"] == "on"
