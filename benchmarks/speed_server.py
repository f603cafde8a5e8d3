"""A server of photographs that costs next to nothing, and a stand-in for a Label Studio with uploads and for a bucket.

`python -m benchmarks.speed_server FOLDER` is a process of its own, which tells its address on its first line.
"""

from __future__ import annotations

import contextlib
import json
import socketserver
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

import psutil

from benchmarks.speed_photos import PHOTOS, photo_file
from tests.harness.stack import ROOT, StackError

PLAIN, WITH_ETAG, LATE, UPLOAD = "plain", "etag", "late", "data/upload"
S3 = "bucket"  # of S3, where Label Studio signs the addresses: whose signature it is, nobody looks at
LATE_BY_S = 0.05
TOKEN = "5eed" * 10  # as long as a legacy token
_LABEL_STUDIO = "/api/"


@dataclass(frozen=True)
class PhotoServer:
    """A running server."""

    url: str
    process: subprocess.Popen[str]

    def address(self, mode: str, name: str, number: int) -> str:
        """Where a photograph is, as a task holds it: of an upload that is the path on Label Studio."""
        if mode == UPLOAD:
            return f"/{UPLOAD}/1/{number:08x}-{name.replace(' ', '_')}.jpg"  # as Label Studio names them
        place = "s3:/" if mode == S3 else self.url
        return f"{place}/{mode}/{name.replace(' ', '_')}/{number}.jpg"

    def cpu_s(self) -> float:
        """The processor time that it took until now."""
        times = psutil.Process(self.process.pid).cpu_times()
        return float(times.user + times.system)


@contextlib.contextmanager
def photo_server(folder: Path) -> Iterator[PhotoServer]:
    """Serve the photographs that `make_photos` wrote to `folder`, from a child process. Raises StackError."""
    command = [sys.executable, "-m", "benchmarks.speed_server", str(folder)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        try:
            url = process.stdout.readline().strip() if process.stdout else ""
            if not url:
                raise StackError("the server of photographs didn't come up: its error stands above")
            yield PhotoServer(url, process)
        finally:
            process.terminate()


class _Handler(socketserver.StreamRequestHandler):
    """Answers GETs of one connection; of HTTP it knows what the backend says."""

    disable_nagle_algorithm = True  # else the last bytes of an answer wait
    photos: Mapping[str, bytes]  # by path, as in /1_MP/0.jpg

    def handle(self) -> None:
        with contextlib.suppress(ConnectionError):
            while request_line := self.rfile.readline():
                headers = {}
                while line := self.rfile.readline().strip():
                    name, _, value = line.decode("latin-1").partition(":")
                    headers[name.lower()] = value.strip()
                self._answer(unquote(request_line.split()[1].decode("latin-1")), headers)

    def _answer(self, path: str, headers: Mapping[str, str]) -> None:
        mode, photo, number = _photo_at(path)
        is_for_label_studio = mode == UPLOAD or path.startswith(_LABEL_STUDIO)
        if is_for_label_studio and headers.get("authorization") != f"Token {TOKEN}":
            self._send("401 Unauthorized")
        elif path.startswith(_LABEL_STUDIO):
            self._send("200 OK", json.dumps(_label_studio_says(path)).encode(), "Content-Type: application/json\r\n")
        elif mode not in {PLAIN, WITH_ETAG, LATE, UPLOAD, S3}:
            self._send("200 OK")  # /health, and the question whether there is such a bucket
        else:
            self._send_photo(mode, photo, number, headers)

    def _send_photo(self, mode: str, name: str, number: int, headers: Mapping[str, str]) -> None:
        if mode == LATE:
            time.sleep(LATE_BY_S)
        tag = f'"{name}/{number}"'
        validator = f"ETag: {tag}\r\n" if mode == WITH_ETAG else ""
        if validator and headers.get("if-none-match") == tag:
            self._send("304 Not Modified", headers=validator)
            return
        photo = self.photos[f"{name}/{number % PHOTOS}"]
        self._send("200 OK", photo, f"Content-Type: image/jpeg\r\n{validator}", after=b"%d" % number)

    def _send(self, status: str, body: bytes = b"", headers: str = "", after: bytes = b"") -> None:
        head = f"HTTP/1.1 {status}\r\nContent-Length: {len(body) + len(after)}\r\n{headers}\r\n"
        # One after the other: to join them would copy the photograph.
        for part in (head.encode("latin-1"), body, after):
            if part:
                self.request.sendall(part)


def _photo_at(path: str) -> tuple[str, str, int]:
    """How it is served, its set, and its number; of another path, nothing."""
    if path.startswith(f"/{UPLOAD}/"):
        number, _, name = Path(path).stem.partition("-")
        return UPLOAD, name, int(number, 16)
    if path.startswith(_LABEL_STUDIO):  # whose query may hold anything
        return "", "", 0
    path = path.partition("?")[0]
    mode, _, name = path.strip("/").rpartition("/")[0].rpartition("/")
    return (mode, name, int(Path(path).stem)) if mode else ("", "", 0)


def _label_studio_says(path: str) -> dict[str, object]:
    """What the backend asks of Label Studio's API: who it is, and which tasks hold its predictions: all of them."""
    query = parse_qs(urlsplit(path).query).get("query", ['{"selectedItems": {"included": []}}'])[0]
    return {"tasks": [{"id": task_id} for task_id in json.loads(query)["selectedItems"]["included"]]}


class _Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
    request_queue_size = 128


def main() -> None:
    """Serve until the process is ended."""
    folder = Path(sys.argv[1])
    _Handler.photos = {
        f"{name.name.replace(' ', '_')}/{number}": photo_file(folder, name.name, number).read_bytes()
        for name in folder.iterdir()
        if name.is_dir()
        for number in range(PHOTOS)
    }
    with _Server(("127.0.0.1", 0), _Handler) as server:
        print(f"http://127.0.0.1:{server.server_address[1]}", flush=True)
        server.serve_forever()


if __name__ == "__main__":
    main()
