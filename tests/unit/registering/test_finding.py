from __future__ import annotations

import io
from pathlib import Path

import pytest

from yolo_backend.registering.finding import FindError, find_images, left_alone, shown


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with images, labels and hidden files in `photos`."""
    for name in ("b.jpg", "a.PNG", "day/c.webp", "a.txt", ".hidden.jpg", ".cache/d.jpg", "scan.tif"):
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("sources", "found"),
    [
        (["photos"], ["photos/a.PNG", "photos/b.jpg", "photos/day/c.webp", "photos/scan.tif"]),
        (["photos/*.jpg"], ["photos/b.jpg"]),
        (["photos/**/*.*"], ["photos/a.PNG", "photos/b.jpg", "photos/day/c.webp", "photos/scan.tif"]),
        (["photos/b.jpg", "photos/*.jpg"], ["photos/b.jpg"]),
    ],
    ids=["a folder", "a glob", "a glob through folders", "each once"],
)
@pytest.mark.usefixtures("photos")
def test_what_files_are_found(sources: list[str], found: list[str]) -> None:
    assert find_images(sources) == [Path(name) for name in found]


@pytest.mark.parametrize("suffix", [".dcm", ".jxl", ".ppm", ".heic", ".NEF", ".psd", ".jp2", ".avif"])
def test_images_of_every_kind_are_found(tmp_path: Path, suffix: str) -> None:
    """What becomes of them is told by who knows."""
    (tmp_path / f"a{suffix}").touch()
    assert find_images([str(tmp_path)]) == [tmp_path / f"a{suffix}"]


@pytest.mark.parametrize(
    "address",
    [
        "https://example.com/a%20b.jpg?w=1",
        "s3://bucket/a.jpg",
        "gs://bucket/a.jpg",
        "azure-blob://box/a.jpg",
        "/data/upload/1/01234567-a.jpg",
        "/tools/ls/data/upload/1/01234567-a.jpg",
        "/data/local-files/?d=a.jpg",
        "data:image/png;base64," + "A" * 10_000,
    ],
)
def test_addresses_go_as_they_are(address: str) -> None:
    assert find_images([address]) == [address]
    assert find_images(["-"], [address]) == [address]


def test_a_list_is_read_from_where_it_lies(photos: Path) -> None:
    (photos / "photos" / "train.list").write_text("./b.jpg\n\n s3://bucket/x.jpg \nday/c.webp\n")

    assert find_images(["photos/train.list"]) == [Path("photos/b.jpg"), "s3://bucket/x.jpg", Path("photos/day/c.webp")]


@pytest.mark.usefixtures("photos")
def test_standard_input_is_a_list() -> None:
    assert find_images(["-"], ["photos/b.jpg\n", "https://example.com/a.jpg\n"]) == [
        Path("photos/b.jpg"),
        "https://example.com/a.jpg",
    ]


@pytest.mark.parametrize(
    ("sources", "standard_input", "message"),
    [
        (["missing"], [], "missing is no folder, no file, no glob"),
        (["photos/*.gif"], [], "No image matches photos/*.gif"),
        (["empty"], [], "No image is in the folder empty"),
        (["-"], [], "No image is named by -"),
        (["-"], ["photos/b.jpg", "nothing.jpg"], "standard input:2: nothing.jpg is no image's file"),
        (["-"], ["photos/day"], "standard input:1: photos/day is no image's file"),
        (["photos/a.txt"], [], "photos/a.txt:1: x is no image's file"),
        (["photos/binary"], [], "photos/binary is neither an image nor a list"),
        (["a" * 300], [], "... can't be read: File name too long"),
        (["-"], ["a" * 300 + ".jpg"], "... can't be read: File name too long"),
        (["data:text," + "a" * 300], [], "data: address of 310 characters can't be read: File name too long"),
        (["ftp://me:secret@host/a.jpg?sig=secret"], [], "No image matches ftp://host/a.jpg?..."),
        (["HTTPS://host/a.jpg?sig=secret"], [], "No image matches https://host/a.jpg?..."),
        (["-"], ["host/a.jpg?sig=secret"], "standard input:1: host/a.jpg?... is no image's file"),
    ],
)
def test_what_is_no_image_is_told(photos: Path, sources: list[str], standard_input: list[str], message: str) -> None:
    (photos / "empty").mkdir()
    (photos / "photos" / "binary").write_bytes(b"\xff\xfe\xff")

    with pytest.raises(FindError) as caught:
        find_images(sources, standard_input)
    assert message in str(caught.value)
    assert "secret" not in str(caught.value)


def test_standard_input_that_is_no_text_is_told() -> None:
    with pytest.raises(FindError, match="Standard input is no list of images: it isn't text in UTF-8"):
        find_images(["-"], io.TextIOWrapper(io.BytesIO(b"a\xff.jpg\n"), "utf-8"))


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (Path("a?b=c.jpg"), "a?b=c.jpg"),
        ("photos/?.jpg", "photos/?.jpg"),
        ("https://me:secret@host/a.jpg?sig=secret", "https://host/a.jpg?..."),
        ("//me:secret@host/a.jpg", "//host/a.jpg"),
        ("me:secret@host/a.jpg", "host/a.jpg"),
        ("photos/a@2x.jpg", "photos/a@2x.jpg"),
        ("data:image/png;base64,AAAA", "data: address of 26 characters"),
        (" data:image/png;base64,AAAA", "data: address of 26 characters"),
        ("a" * 300, "a" * 197 + "..."),
    ],
)
def test_an_image_in_a_message_is_short_and_holds_no_secret(image: Path | str, message: str) -> None:
    assert shown(image) == message


def test_what_of_a_folder_is_left_alone_is_counted_by_its_ending(photos: Path) -> None:
    """Hidden files, the labels that are read, and files that are named one by one aren't."""
    for name in ("b.txt", "movie.MP4", "Makefile", "labels/b.txt", "labels/classes.txt", "day/notes.txt"):
        path = photos / "photos" / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"x")

    assert left_alone(["photos"]) == {".mp4": 1, ".txt": 5, "without an ending": 1}
    assert left_alone(["photos", "photos/day"], [photos / "photos" / "labels"]) == {
        ".mp4": 1, ".txt": 3, "without an ending": 1
    }  # fmt: skip
    assert left_alone(["photos"], [photos / "photos"]) == {}
    assert left_alone(["photos/a.txt", "https://host/a.jpg"]) == {}
