"""The speed benchmark: its parts do what they say, and a short run of it gives boxes and ratios. No time is judged."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from benchmarks.speed_photos import distinct
from benchmarks.speed_results import Throughput
from benchmarks.speed_server import LATE, PLAIN, S3, TOKEN, UPLOAD, WITH_ETAG, PhotoServer, photo_server
from tests.harness.command import run_benchmark
from yolo_backend.images.decode import decode_image


@pytest.fixture(scope="module")
def photo(bccd_files: list[Path]) -> bytes:
    return bccd_files[0].read_bytes()


@pytest.fixture(scope="module")
def server(photo: bytes, tmp_path_factory: pytest.TempPathFactory) -> Iterator[PhotoServer]:
    folder = tmp_path_factory.mktemp("photos")
    (folder / "1 MP").mkdir()
    for number in range(24):
        (folder / "1 MP" / f"{number:03}.jpg").write_bytes(photo)
    with photo_server(folder) as running:
        yield running


@pytest.mark.parametrize("mode", [PLAIN, WITH_ETAG, LATE])
def test_each_address_has_a_file_of_its_own_and_the_same_picture(server: PhotoServer, photo: bytes, mode: str) -> None:
    files = [requests.get(server.address(mode, "1 MP", number), timeout=10).content for number in (3, 27)]
    assert files == [distinct(photo, 3), distinct(photo, 27)]
    expected = decode_image(photo, 10).pixels
    assert all((decode_image(file, 10).pixels == expected).all() for file in files)


def test_an_etag_is_answered_with_304(server: PhotoServer) -> None:
    address = server.address(WITH_ETAG, "1 MP", 5)
    tag = requests.get(address, timeout=10).headers["ETag"]
    assert requests.get(address, headers={"If-None-Match": tag}, timeout=10).status_code == 304
    assert requests.get(address, headers={"If-None-Match": '"other"'}, timeout=10).status_code == 200


def test_uploads_want_the_token(server: PhotoServer, photo: bytes) -> None:
    address = server.url + server.address(UPLOAD, "1 MP", 5)
    assert requests.get(address, timeout=10).status_code == 401
    answer = requests.get(address, headers={"Authorization": f"Token {TOKEN}"}, timeout=10)
    assert answer.content == distinct(photo, 5)


def test_a_bucket_takes_signed_addresses(server: PhotoServer, photo: bytes) -> None:
    assert server.address(S3, "1 MP", 5) == "s3://bucket/1_MP/5.jpg"
    assert requests.head(f"{server.url}/bucket", timeout=10).ok
    signed = f"{server.url}/bucket/1_MP/5.jpg?X-Amz-Credential=key%2F20260101&X-Amz-Signature=00"
    assert requests.get(signed, timeout=10).content == distinct(photo, 5)


def test_a_ratio_is_of_the_limits_around_it() -> None:
    limits, own_limits = [(10.0, 10.0), (8.0, 12.0), (10.0, 30.0)], [(16.0, 16.0)] * 3
    case = Throughput("1 MP", "640", 10, [8.0, 9.0, 5.0], limits, own_limits, [4.0, 3.0, 5.0], 1, 1, 0)
    assert case.of_limit == 0.8
    assert case.of_own_limit == 0.5
    assert case.times_loop == 2
    assert case.typical == 8


@pytest.mark.timeout(900)
def test_a_short_run_gives_boxes_and_ratios(data_dir: Path) -> None:
    run = run_benchmark("speed", "--quick", "--no-report", "--only", "1mp", "--weights", "320", data_dir=data_dir)
    assert run.returncode == 0, run.stdout + run.stderr
    assert "1 MP at 320, of the model alone" in run.stdout
    assert "1 MP at 320, against the hand-written loop" in run.stdout
