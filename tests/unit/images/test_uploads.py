"""Uploads on the disk: which values are read there, through what no name leads, and what is told of a folder."""

from __future__ import annotations

import os
import tempfile
import threading
import time
import unicodedata
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.harness.http_server import StartServer, reply
from tests.harness.plain_user import as_a_plain_user
from yolo_backend.images import uploads as uploads_module
from yolo_backend.images.errors import ImageError
from yolo_backend.images.fetch import ImageFetcher
from yolo_backend.images.identity import identity_key, is_lasting
from yolo_backend.images.sources import Remote, Source, Upload, resolve_source
from yolo_backend.images.uploads import FolderOfUploads, look_for_uploads, uploads_of
from yolo_backend.label_studio.studio import Studio
from yolo_backend.messages import Trouble

STUDIO, OUTSIDE = "http://studio:8080/ls", "https://labels.example/outside"
NAME = "0123abcd-a.jpg"


def resolve(value: str, root: Path, project: str = "7", studio_url: str = STUDIO) -> Source:
    return resolve_source(value, 1, studio_url, None, lambda: OUTSIDE, uploads=uploads_of(root, project))


@pytest.mark.parametrize(
    ("value", "name"),
    [
        (f"/data/upload/7/{NAME}", NAME),
        (f" /data/upload/7/{NAME}\n", NAME),
        (f"/ls/data/upload/7/{NAME}", NAME),  # as Label Studio writes it below a path prefix
        (f"/outside/data/upload/7/{NAME}", NAME),
        (f"{STUDIO}/data/upload/7/{NAME}", NAME),
        (f"{OUTSIDE}/data/upload/7/{NAME}", NAME),
        (f"//labels.example/outside/data/upload/7/{NAME}", NAME),
        ("/data/upload/7/0123abcd-a%20b+c%2Bd%25.jpg", "0123abcd-a b+c+d%.jpg"),
        ("/data/upload/7/0123abcd-gr%C3%B6%C3%9Fe.jpg", "0123abcd-größe.jpg"),
        ("/data/upload/7/0123abcd-größe (1).jpg", "0123abcd-größe (1).jpg"),
        ("/data/upload/7/0123abcd-a#b.jpg", "0123abcd-a#b.jpg"),
        ("/data/upload/7/0123abcd-100%.jpg", "0123abcd-100%.jpg"),
        ("/data/upload/7/0123abcd-%2e%2e", "0123abcd-.."),
        ("/data/upload/7/0123abcd-%252e.jpg", "0123abcd-%2e.jpg"),  # unquoted once
    ],
)
def test_an_upload_of_the_asking_project_is_read_from_the_disk(tmp_path: Path, value: str, name: str) -> None:
    source = resolve(value, tmp_path)
    assert isinstance(source, Upload)
    assert (source.root, source.name) == (tmp_path, f"upload/7/{name}")
    assert source.remote == resolve_source(value, 1, STUDIO, None, lambda: OUTSIDE)
    assert is_lasting(source, Studio(STUDIO, None))
    assert is_lasting(source.remote, Studio(STUDIO, None))


@pytest.mark.parametrize(
    "value",
    [
        f"/data/upload/8/{NAME}",
        f"/data/upload/77/{NAME}",
        f"/data/upload/07/{NAME}",
        f"/data/upload/%37/{NAME}",
        f"/data/upload/٧/{NAME}",
        f"/data/upload/{NAME}",
        f"/data/upload//7/{NAME}",
        f"/data/upload/7//{NAME}",
        f"/data/upload/./7/{NAME}",
        f"/data/upload/7/./{NAME}",
        f"/data/upload/7/../8/{NAME}",
        f"/data/upload/8/../7/{NAME}",
        f"{STUDIO}/data/upload/8/../7/{NAME}",
        f"{STUDIO}/data/upload/7/../8/{NAME}",
        f"/data/upload/7/%2e%2e/8/{NAME}",
        "/data/upload/7/../../../../etc/passwd",
        "/data/upload/7/..%2f..%2f..%2fetc%2fpasswd",
        "/data/upload/7/0123abcd-%2f..%2f..%2f8%2f0123abcd-a.jpg",
        "/data/upload/7/0123abcd-..%5c..%5c8%5c0123abcd-a.jpg",
        "/data/upload/7/0123abcd-..\\8\\a.jpg",
        "/data/upload/7/0123abcd-a.jpg%00.png",
        "/data/upload/7/0123abcd-a.jpg%0A",
        "/data/upload/7/0123abcd-a.jpg%3Astream",
        "/data/upload/7/0123abcd-%ff.jpg",
        "/data/upload/7/0123abcd-%C0%AE%C0%AE.jpg",
        f"/data/upload/7/{NAME}?x=1",
        f"/data/upload/7/{NAME}/",
        f"/data/upload/7/{NAME}/a.jpg",
        "/data/upload/7/0123abcd-",
        "/data/upload/7/a.jpg",
        "/data/upload/7/0123ABCD-a.jpg",
        "/data/upload/7/.0123abcd-a.jpg",
        "/data/upload/7/",
        "/data/upload/7/..",
        f"/DATA/UPLOAD/7/{NAME}",
        f"/data/uplo\tad/7/{NAME}",
        f"\\data\\upload\\7\\{NAME}",
        f"/elsewhere/data/upload/7/{NAME}",
        f"/storage-data/uploaded/?filepath=upload/7/{NAME}",
        f"/data/local-files/?d=/data/upload/7/{NAME}",
        f"https://elsewhere/data/upload/7/{NAME}",
        f"https://labels.example/data/upload/7/{NAME}",
        f"http://studio:8081/ls/data/upload/7/{NAME}",
        f"http://studio:8080@elsewhere/ls/data/upload/7/{NAME}",
        f"s3://bucket/data/upload/7/{NAME}",
    ],
)
def test_all_else_is_label_studios_to_judge(tmp_path: Path, value: str) -> None:
    source = resolve(value, tmp_path)
    assert isinstance(source, Remote)
    assert source == resolve_source(value, 1, STUDIO, None, lambda: OUTSIDE)


@pytest.mark.parametrize("project", ["", "0", "07", "-7", "+7", "7 ", "7/../8", "7/", "..", "٧", "７", "7e0", "9" * 20])
def test_what_is_no_project_has_no_uploads(tmp_path: Path, project: str) -> None:
    assert uploads_of(tmp_path, project) is None


def test_without_a_folder_nothing_is_read() -> None:
    assert uploads_of(None, "7") is None


def test_what_a_project_learns_from_the_disk_is_its_own() -> None:
    studio, root = Studio(STUDIO, "t0ken"), Path("/media")

    def key(value: str, project: str | None) -> bytes:
        return identity_key(value, studio, None, uploads_of(root, project) if project else None)

    upload, other = f"/data/upload/7/{NAME}", "https://example.com/a.jpg"
    assert len({key(upload, project) for project in ("7", "8", None)}) == 2
    assert key(upload, "8") == key(upload, None)
    assert key(f" {upload}\n", "7") == key(upload, "7")
    assert len({key(other, project) for project in ("7", "8", None)}) == 1


# Real folders


@pytest.fixture
def media(tmp_path: Path) -> Path:
    """A media/ with an upload of project 7 and one of project 8, links of all kinds, and a secret beside it."""
    root = tmp_path / "data" / "media"
    for project in ("7", "8"):
        (root / "upload" / project).mkdir(parents=True)
        (root / "upload" / project / NAME).write_bytes(f"of {project}".encode())
    (tmp_path / "data" / ".env").write_bytes(b"SECRET_KEY")
    seven = root / "upload" / "7"
    (seven / "0123abcd-link").symlink_to(NAME)
    (seven / "0123abcd-out").symlink_to(tmp_path / "data" / ".env")
    (seven / "0123abcd-other").symlink_to(f"../8/{NAME}")
    (seven / "0123abcd-loop").symlink_to("0123abcd-loop")
    (seven / "0123abcd-folder").mkdir()
    os.mkfifo(seven / "0123abcd-pipe")
    (root / "upload" / "9").symlink_to("8")
    return root


def fetch(serve: StartServer, media: Path, value: str, project: str = "7") -> tuple[bytes, list[str]]:
    """What is fetched, and what Label Studio was asked for."""
    server = serve(reply(b"over HTTP"))
    fetcher = ImageFetcher(timeout_s=10, max_bytes=1000, connections=1)
    source = resolve(value, media, project, server.url)
    content = fetcher.fetch(source, Studio(server.url, "t0ken")).content
    assert all(request.headers["authorization"] == "Token t0ken" for request in server.requests)
    return content, [request.path for request in server.requests]


def test_a_file_of_the_disk_is_read_and_nobody_is_asked(serve: StartServer, media: Path) -> None:
    assert fetch(serve, media, f"/data/upload/7/{NAME}") == (b"of 7", [])


def test_a_hard_link_is_a_file(serve: StartServer, media: Path) -> None:
    """As copies by `rsync --link-dest` and deduplication are; to make one in there takes the right to write there."""
    (media / "upload" / "7" / "0123abcd-hard.jpg").hardlink_to(media / "upload" / "7" / NAME)
    assert fetch(serve, media, "/data/upload/7/0123abcd-hard.jpg") == (b"of 7", [])


def test_the_media_folder_itself_may_be_a_link(serve: StartServer, media: Path, tmp_path: Path) -> None:
    (tmp_path / "linked").symlink_to(media)
    assert fetch(serve, tmp_path / "linked", f"/data/upload/7/{NAME}") == (b"of 7", [])


@pytest.mark.parametrize(
    ("name", "project"),
    [
        ("0123abcd-missing.jpg", "7"),
        ("0123abcd-link", "7"),
        ("0123abcd-out", "7"),
        ("0123abcd-other", "7"),
        ("0123abcd-loop", "7"),
        ("0123abcd-folder", "7"),
        ("0123abcd-pipe", "7"),  # which would wait for a writer
        ("0123abcd-" + "x" * 300, "7"),
        ("0123abcd-" + "%C3%B6" * 300, "7"),
        (NAME, "9"),
        (NAME, "10"),
    ],
)
def test_what_cannot_be_read_there_is_asked_of_label_studio(
    serve: StartServer, media: Path, name: str, project: str
) -> None:
    path = f"/data/upload/{project}/{name}"
    assert fetch(serve, media, path, project) == (b"over HTTP", [path])


def test_a_name_is_the_same_to_the_letter(serve: StartServer, media: Path) -> None:
    """A disk that tells apart neither case nor normal form would find it, in the project's own folder all the same."""
    composed, apart = (unicodedata.normalize(form, "0123abcd-ü.jpg") for form in ("NFC", "NFD"))
    (media / "upload" / "7" / composed).write_bytes(b"composed")
    (media / "upload" / "7" / apart).write_bytes(b"apart")
    assert fetch(serve, media, f"/data/upload/7/{composed}") == (b"composed", [])
    assert fetch(serve, media, f"/data/upload/7/{apart}") == (b"apart", [])


def test_a_file_may_grow_while_it_is_read_and_not_beyond_the_limit(
    serve: StartServer, media: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = media / "upload" / "7" / NAME
    real_fstat = os.fstat

    def fstat_then_grow(opened: int) -> os.stat_result:
        known = real_fstat(opened)
        with file.open("ab") as end:
            end.write(b"x" * 400)
        return known

    monkeypatch.setattr("yolo_backend.images.fetch.os.fstat", fstat_then_grow)
    assert fetch(serve, media, f"/data/upload/7/{NAME}")[0][:404] == b"of 7" + b"x" * 400
    file.write_bytes(b"x" * 900)
    with pytest.raises(ImageError, match="is larger than"):
        fetch(serve, media, f"/data/upload/7/{NAME}")


@pytest.mark.parametrize(("size", "kind"), [(0, "empty"), (1000, None), (1001, "too_large"), (10**7, "too_large")])
def test_the_limit_of_bytes_is_that_of_http(serve: StartServer, media: Path, size: int, kind: str | None) -> None:
    (media / "upload" / "7" / NAME).write_bytes(b"x" * size)
    if kind is None:
        assert fetch(serve, media, f"/data/upload/7/{NAME}") == (b"x" * size, [])
        return
    with pytest.raises(ImageError) as raised:
        fetch(serve, media, f"/data/upload/7/{NAME}")
    assert raised.value.kind == kind


# The folder


@pytest.fixture
def open_media() -> Iterator[Path]:
    """A media/ with an upload, where another user can get to; those of pytest's are this user's own."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        root = Path(folder) / "media"
        (root / "upload" / "7").mkdir(parents=True)
        (root / "upload" / "7" / NAME).write_bytes(b"of 7")
        yield root
        for path in (root, root / "upload", root / "upload" / "7"):
            path.chmod(0o755)


def test_a_folder_with_uploads_is_all_right(open_media: Path) -> None:
    with as_a_plain_user():
        assert look_for_uploads(open_media) is None


@pytest.mark.parametrize("closed", ["", "upload"])
@pytest.mark.parametrize("mode", [0o000, 0o300, 0o444])
def test_a_folder_that_may_not_be_read_is_told_with_who_should_read_it(
    open_media: Path, closed: str, mode: int
) -> None:
    (open_media / closed).chmod(mode)
    with as_a_plain_user() as user:
        trouble = look_for_uploads(open_media)
    assert trouble == Trouble(
        f"LABEL_STUDIO_MEDIA_ROOT ({open_media}) can't be read (Permission denied)",
        f"let the backend's user {user} read that folder, those in it, and their files",
        lasts=True,
    )


@pytest.mark.parametrize("closed", ["7", f"7/{NAME}"])
def test_what_may_not_be_read_comes_from_label_studio(serve: StartServer, open_media: Path, closed: str) -> None:
    (open_media / "upload" / closed).chmod(0)
    with as_a_plain_user():
        path = f"/data/upload/7/{NAME}"
        assert fetch(serve, open_media, path) == (b"over HTTP", [path])


def test_what_else_may_be_wrong_with_a_folder_is_told(tmp_path: Path) -> None:
    name_it = "name the folder that holds upload/, in Label Studio's data folder it is media/"
    root = tmp_path / "media"
    shown = f"LABEL_STUDIO_MEDIA_ROOT ({root})"
    assert look_for_uploads(root) == Trouble(f"{shown} can't be read (No such file or directory)", name_it, lasts=True)

    root.write_bytes(b"")
    assert look_for_uploads(root) == Trouble(f"{shown} can't be read (Not a directory)", name_it, lasts=True)

    root.unlink()
    root.mkdir()
    empty = Trouble(f"{shown} holds no upload/", f"do nothing if Label Studio has no upload yet, else {name_it}")
    assert look_for_uploads(root) == empty
    assert not empty.lasts

    (root / "upload").write_bytes(b"")
    assert look_for_uploads(root) == Trouble(f"{shown} can't be read (Not a directory)", name_it, lasts=True)

    (root / "upload").unlink()
    (root / "elsewhere").mkdir()
    (root / "upload").symlink_to("elsewhere")
    assert str(look_for_uploads(root)) == (
        f"upload/ in {shown} is a symbolic link, which isn't followed: make a folder there, and mount the link's "
        "target on it"
    )


def test_the_folder_of_the_database_and_the_secret_key_is_never_suggested(tmp_path: Path) -> None:
    (tmp_path / "media" / "upload").mkdir(parents=True)
    assert "holds no upload/" in str(look_for_uploads(tmp_path))
    (tmp_path / ".env").write_text("SECRET_KEY=x")
    trouble = look_for_uploads(tmp_path)
    assert str(trouble) == (
        f"LABEL_STUDIO_MEDIA_ROOT ({tmp_path}) is Label Studio's data folder, with its database and secret key: name "
        "the media/ in it, and let the backend see no more than that (in a container, mount it alone)"
    )
    assert look_for_uploads(Path("a\0b")) is not None


def test_nobody_waits_for_a_folder_that_hangs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As one on a network does whose server is away: for good, and whoever looks at it hangs, too."""
    monkeypatch.setattr(uploads_module, "_LOOK_TIMEOUT_S", 0.1)
    monkeypatch.setattr(uploads_module, "_LOOK_IS_FRESH_S", 0.0)
    looked, comes_back, looks = threading.Event(), threading.Event(), []

    def hangs(root: Path) -> Trouble | None:
        looks.append(root)
        looked.set()
        comes_back.wait(10)
        return look_for_uploads(root)

    folder = FolderOfUploads(tmp_path, hangs)
    for _ in range(3):
        assert folder.trouble() == Trouble(
            f"LABEL_STUDIO_MEDIA_ROOT ({tmp_path}) doesn't answer within 0.1 s",
            "see to the network or the disk that it lies on",
            lasts=True,
        )
    assert looked.wait(10)
    assert looks == [tmp_path], "each look would hold a thread for good"
    (tmp_path / "upload").mkdir()
    monkeypatch.setattr(uploads_module, "_LOOK_TIMEOUT_S", 10)
    comes_back.set()
    assert folder.trouble() is None
    (tmp_path / "upload").rmdir()
    assert "holds no upload/" in str(folder.trouble())


def test_a_folder_is_looked_at_once_for_those_who_ask_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uploads_module, "_LOOK_IS_FRESH_S", 1000)
    together, has_looked, looks = threading.Barrier(11), threading.Event(), []

    def look(root: Path) -> None:
        looks.append(root)
        assert has_looked.wait(10)

    folder = FolderOfUploads(tmp_path, look)

    def ask() -> Trouble | None:
        together.wait(10)
        return folder.trouble()

    with ThreadPoolExecutor(10) as people:
        asked = [people.submit(ask) for _ in range(10)]
        together.wait(10)
        time.sleep(0.1)  # those who are later get its answer, too
        has_looked.set()
        assert [each.result() for each in asked] == [None] * 10
    assert folder.trouble() is None
    assert looks == [tmp_path]
