"""The faults of images and tasks: what goes wrong, and what may come out."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from tests.faults import images
from tests.faults.servers import (
    SIGNATURE,
    Answer,
    World,
    chunked,
    drip,
    endless,
    made,
    ok_head,
    photo_head,
    plain,
    raw,
    redirect,
    then_hang,
    then_reset,
    zipped_bomb,
    zipped_twice_bomb,
)
from tests.harness.bulk import Task

# These stand beside the kinds of failures.
PREDICTED = "predicted"
NO_ANSWER = "no answer"
WITH_PERSONAL_TOKEN, WITH_LEGACY_TOKEN, WITH_REFUSED_TOKEN, WITHOUT_STUDIO = "1", "2", "3", "4"
TIMES = 20
_PHOTO = images.photo_file()
_HALF = images.truncated(_PHOTO)


@dataclass(frozen=True)
class Fault:
    """One thing that goes wrong with a task.

    `task` makes the task of this id; `outcomes` are the kinds of failure that may come out, or PREDICTED. `project`
    says which token the backend has. Where `answer` is given, the hostile server gives it to this fault's address
    until it is mended; a fault that `mends_itself` comes once for each task. One that `spreads` may take the tasks
    beside it along, so it is injected alone.
    """

    name: str
    task: Callable[[World, int], Task]
    outcomes: frozenset[str]
    project: str = WITHOUT_STUDIO
    answer: Answer | None = None
    slug: str = ""
    times: int = TIMES
    mends_itself: bool = False
    spreads: bool = False


def image_task(value: Any, task_id: int) -> Task:
    """A task with this image."""
    return {"id": task_id, "data": {"image": value}}


def with_tls(url: str) -> str:
    """The same address over TLS."""
    return url.replace("http:", "https:", 1)


def _served(name: str, answer: Answer, *outcomes: str) -> Fault:
    slug = "".join(letter if letter.isalnum() else "-" for letter in name)
    return Fault(
        name,
        lambda world, number: image_task(
            f"{world.hostile.url}/{slug}/{number}.jpg?X-Amz-Signature={SIGNATURE}", number
        ),
        frozenset(outcomes),
        answer=answer,
        slug=slug,
    )


def _redirected(name: str, location: str, *outcomes: str) -> Fault:
    return _served(f"redirect to {name}", redirect(location), *outcomes)


def _addressed(name: str, address: Callable[[World], str], *outcomes: str) -> Fault:
    return Fault(name, lambda world, number: image_task(address(world), number), frozenset(outcomes))


def _in_studio(
    name: str, path: str, *outcomes: str, project: str = WITH_PERSONAL_TOKEN, mends_itself: bool = False
) -> Fault:
    return Fault(
        name,
        lambda world, number: image_task(path.format(number=number), number),
        frozenset(outcomes),
        project=project,
        mends_itself=mends_itself,
    )


def _inline(name: str, content: Callable[[int], bytes], *outcomes: str) -> Fault:
    return Fault(
        name,
        lambda world, number: image_task(images.data_address(content(number)), number),
        frozenset(outcomes),
    )


def _image(name: str, content: Callable[[], bytes], *outcomes: str) -> Fault:
    return _inline(name, lambda number: content(), *outcomes)


def _valued(name: str, value: Any, *outcomes: str) -> Fault:
    return Fault(name, lambda world, number: image_task(value, number), frozenset(outcomes))


def _shaped(name: str, task: Task, *outcomes: str) -> Fault:
    return Fault(name, lambda world, number: {"id": number, **task}, frozenset(outcomes))


STATUSES = [
    _served("status 401, always", plain("401 Unauthorized"), "unauthorized"),
    _served("status 403", plain("403 Forbidden"), "unauthorized"),
    _served("status 404", plain("404 Not Found"), "not_found"),
    _served("status 410", plain("410 Gone"), "not_found"),
    _served("status 429", plain("429 Too Many Requests", "Retry-After: 3600"), "http_error"),
    _served("status 500", plain("500 Internal Server Error"), "http_error"),
    _served("status 503", plain("503 Service Unavailable", "Retry-After: 3600"), "http_error"),
    _served("status 204", raw(b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n"), "http_error"),
    _served("status 206, half of the image", plain("206 Partial Content", body=_HALF), "http_error"),
    _served("status 304", raw(b"HTTP/1.1 304 Not Modified\r\nConnection: close\r\n\r\n"), "http_error"),
    _served("status 999", plain("999 What"), "http_error"),
    _served("status 200 with no bytes", plain("200 OK"), "empty"),
]

A_HANG = _served("a hang before the headers", then_hang(), "timeout")
HANGS = [
    _addressed("a port that accepts nobody", lambda world: f"{world.full_url}/a.jpg", "timeout"),
    _addressed("a TLS handshake that hangs", lambda world: f"{world.silent_tls_url}/a.jpg", "timeout"),
    A_HANG,
    _served("a hang in the headers", then_hang(b"HTTP/1.1 200 OK\r\nContent-Ty"), "timeout"),
    _served("headers that drip", drip(b"HTTP/1.1 200 OK\r\n", b"X-A: b\r\n"), "timeout"),
    _served("100 Continue without end", drip(b"", b"HTTP/1.1 100 Continue\r\n\r\n"), "timeout"),
    _served("a hang before the body", then_hang(photo_head()), "timeout"),
    _served("a hang in the middle of the body", then_hang(photo_head() + _HALF), "timeout"),
    _served("a body that trickles", drip(ok_head("Content-Length: 99999"), b"\xff"), "timeout"),
    _served("a chunk that never ends", then_hang(chunked(_HALF)), "timeout"),
    _served(
        "an error page that hangs", then_hang(b"HTTP/1.1 404 Not Found\r\nContent-Length: 99\r\n\r\n"), "not_found"
    ),
]

LIES = [
    _served(
        "Content-Length 1000 too large",
        raw(ok_head(f"Content-Length: {len(_PHOTO) + 1000}") + _PHOTO),
        "unreachable",
        "broken",
    ),
    _served("Content-Length too small", raw(ok_head("Content-Length: 2000") + _PHOTO), "broken"),
    _served("Content-Length negative", raw(ok_head("Content-Length: -5") + _PHOTO), PREDICTED, "unreachable"),
    _served(
        "Content-Length that is no number", raw(ok_head("Content-Length: many") + _PHOTO), PREDICTED, "unreachable"
    ),
    _served(
        "two Content-Lengths that differ",
        raw(ok_head("Content-Length: 10", f"Content-Length: {len(_PHOTO)}") + _PHOTO),
        "http_error",
    ),
    _served("chunks without the last", raw(chunked(_HALF, _PHOTO[len(_HALF) :])), "unreachable"),
    _served("chunks with a length that is no number", raw(chunked(_HALF) + b"zzz\r\nabc"), "unreachable"),
    _served("a chunk that promises 4 GiB", raw(chunked(_HALF) + b"ffffffff\r\nabc"), "unreachable"),
    _served("a reset before the headers", then_reset(), "unreachable"),
    _served("a reset in the middle of the body", then_reset(photo_head() + _HALF), "unreachable"),
    _served("closed at once", raw(b""), "unreachable"),
    _served("the image without any headers (HTTP/0.9)", raw(_PHOTO), "unreachable"),
    _served("an SSH server", raw(b"SSH-2.0-OpenSSH_9.9\r\n"), "unreachable"),
    _served("a status that is no number", raw(b"HTTP/1.1 fine OK\r\n\r\n"), "unreachable"),
    _served("100,000 headers", raw(b"HTTP/1.1 200 OK\r\n" + b"X-A: b\r\n" * 100_000), "unreachable"),
    _served("a header of 1 MB", raw(b"HTTP/1.1 200 OK\r\nX-A: " + b"b" * 1_000_000), "unreachable"),
    _served("says gzip, but is not", plain("200 OK", "Content-Encoding: gzip", body=_PHOTO), "http_error"),
    _served(
        "says gzip ten times",
        plain("200 OK", "Content-Encoding: " + ", ".join(["gzip"] * 10), body=_PHOTO),
        "http_error",
    ),
    _served("says an encoding that nobody knows", plain("200 OK", "Content-Encoding: rot13", body=_PHOTO), PREDICTED),
    _served("says text/html, but is an image", plain("200 OK", "Content-Type: text/html", body=_PHOTO), PREDICTED),
]

SIZES = [
    _served("a gzip bomb of 256 MiB", made(zipped_bomb), "too_large"),
    _served("a gzip bomb in a gzip bomb, of 4 GiB", made(zipped_twice_bomb), "too_large"),
    _served("larger than the limit, and says so", plain("200 OK", body=_PHOTO + bytes(3_000_000)), "too_large"),
    _served("a body without end or length", endless(ok_head(), bytes(1 << 16)), "too_large"),
    _served("chunks without end", endless(chunked(), b"10000\r\n" + bytes(1 << 16) + b"\r\n"), "too_large"),
    _served("an error page without end", endless(b"HTTP/1.1 500 No\r\n\r\n", bytes(1 << 16)), "http_error"),
    _served(
        "a redirect with a page without end",
        endless(b"HTTP/1.1 302 Found\r\nLocation: /404/\r\n\r\n", bytes(1 << 16)),
        "not_found",
    ),
    _inline("larger than the limit, in the task itself", lambda number: _PHOTO + bytes(3_000_000), "too_large"),
]

REDIRECTS = [
    _served("redirects in circles", redirect("a.jpg"), "redirects"),
    _served("a chain of redirects", redirect("on/"), "redirects"),
    _redirected("a private address, 10.0.0.1", "http://10.0.0.1/a.jpg", "forbidden_address"),
    _redirected("a private address, 192.168.1.1 over TLS", "https://192.168.1.1/a.jpg", "forbidden_address"),
    _redirected("a cloud's metadata, 169.254.169.254", "http://169.254.169.254/latest/meta-data/", "forbidden_address"),
    _redirected("localhost by its name", "http://localhost/a.jpg", "forbidden_address"),
    _redirected("localhost as 127.1", "http://127.1/a.jpg", "forbidden_address"),
    _redirected("localhost as a number", "http://2130706433/a.jpg", "forbidden_address"),
    _redirected("localhost as IPv6", "http://[::1]/a.jpg", "forbidden_address"),
    _redirected("localhost as IPv4 in IPv6", "http://[::ffff:127.0.0.1]/a.jpg", "forbidden_address"),
    _redirected("0.0.0.0", "http://0.0.0.0/a.jpg", "forbidden_address"),
    _redirected("file:", "file:///etc/passwd", "unsupported"),
    _redirected("ftp:", "ftp://127.0.0.1/a.jpg", "unsupported"),
    _redirected("data:", images.data_address(_PHOTO), "unsupported"),
    _redirected("no scheme", "://127.0.0.1/a.jpg", "unsupported", "not_found", "redirects", "bad_address"),
    _redirected("a port that is no number", "http://127.0.0.1:port/a.jpg", "bad_address", "unsupported"),
    _redirected("nowhere", "", "http_error", "redirects"),
    _served("a redirect without an address", plain("302 Found"), "http_error"),
]

CONNECTIONS = [
    _addressed("a name that does not exist", lambda world: "http://no-such-host.invalid/a.jpg", "dns"),
    _addressed("a port that is closed", lambda world: f"{world.closed_url}/a.jpg", "unreachable"),
    _addressed("a certificate that nobody signed", lambda world: f"{world.self_signed_url}/good/a.jpg", "tls"),
    _addressed("TLS asked of a plain port", lambda world: with_tls(world.hostile.url) + "/good/a.jpg", "tls"),
    _addressed("a private address that is not allowed", lambda world: "http://10.0.0.1/a.jpg", "forbidden_address"),
    _addressed(
        "localhost, where 127.0.0.1 is allowed",
        lambda world: f"http://localhost:{world.hostile.port}/good/a.jpg",
        "forbidden_address",
    ),
    _addressed(
        "another host behind a login (127.0.0.1@...)",
        lambda world: "http://127.0.0.1:80@no-such-host.invalid/a.jpg",
        "dns",
    ),
    _addressed("an address of 1 MB", lambda world: f"{world.hostile.url}/good/" + "a" * 1_000_000, "bad_address"),
    _addressed(
        "an address with a line break",
        lambda world: f"{world.hostile.url}/404/\r\nX-Header: y",
        "not_found",
        "bad_address",
        "unreachable",
    ),
    _addressed("an address without a host", lambda world: "http:///a.jpg", "bad_address"),
    _addressed("a port above 65535", lambda world: "http://127.0.0.1:99999/a.jpg", "bad_address", "unreachable"),
]

STUDIO = [
    _in_studio("Label Studio: 401 once, to a Personal Access Token", "/data/upload/401-once/{number}.jpg", PREDICTED),
    _in_studio("Label Studio: 401 always", "/data/upload/401-always/{number}.jpg", "unauthorized"),
    _in_studio(
        "Label Studio: 401 once, to a legacy token",
        "/data/upload/401-once/{number}.jpg",
        "unauthorized",
        project=WITH_LEGACY_TOKEN,
        mends_itself=True,
    ),
    _in_studio(
        "Label Studio refuses to exchange the token",
        "/data/upload/{number}.jpg",
        "label_studio",
        project=WITH_REFUSED_TOKEN,
    ),
    _in_studio("Label Studio: 503", "/data/upload/503/{number}.jpg", "http_error"),
    _in_studio("Label Studio hangs", "/data/upload/hang/{number}.jpg", "timeout"),
    _in_studio("Label Studio asks for a login", "/data/upload/login/{number}.jpg", "unauthorized"),
    _in_studio("Label Studio redirects to another origin", "/data/upload/elsewhere/{number}.jpg", PREDICTED),
    _in_studio("a presigned address that is gone", "s3://bucket/{number}.jpg", "not_found"),
    _in_studio("`..` in a path of Local Files", "/data/local-files/?d=../../../../etc/passwd", "not_found"),
    _in_studio(
        "a path of Label Studio, and none is known",
        "/data/upload/{number}.jpg",
        "no_label_studio",
        project=WITHOUT_STUDIO,
    ),
    _in_studio(
        "s3://, and no Label Studio is known", "s3://bucket/{number}.jpg", "no_label_studio", project=WITHOUT_STUDIO
    ),
    Fault(
        "s3:// in a task without an id",
        lambda world, number: {"data": {"image": "s3://bucket/a.jpg"}},
        frozenset({"unsupported"}),
        WITH_PERSONAL_TOKEN,
    ),
]

NO_IMAGES = [
    _image("an HTML page", lambda: b"<!doctype html><title>Log in</title>", "not_an_image"),
    _image("JSON", lambda: json.dumps({"detail": "Not found."}).encode(), "not_an_image"),
    _image("an SVG", lambda: b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>', "not_an_image"),
    _image("a PDF", lambda: images.encode(images.photo(), "PDF"), "not_an_image"),
    _image("text", lambda: b"just text", "not_an_image"),
    _image("a PPM", lambda: images.encode(images.photo(), "PPM"), "not_an_image"),
    _image("one byte", lambda: b"\xff", "not_an_image"),
    *(
        _image(
            f"the first 16 bytes of a {name}",
            partial(lambda name: images.photo_file(name)[:16], name),
            "broken",
            "not_an_image",
        )
        for name in images.FORMATS
    ),
]

DAMAGE = [
    *(
        _image(f"half of a {name}", partial(lambda name: images.truncated(images.photo_file(name)), name), "broken")
        for name in images.FORMATS
    ),
    *(
        _inline(
            f"a {name} with 20 bits turned over",
            partial(lambda name, number: images.with_flipped_bits(images.photo_file(name), number), name),
            *("broken", "not_an_image", "too_many_pixels", PREDICTED),
        )
        for name in images.FORMATS
    ),
]

BOMBS = [
    _image("a PNG of 68 bytes that claims 65500 x 65500 pixels", images.huge_png, "too_many_pixels"),
    _image("a JPEG whose header claims 65500 x 65500", images.huge_jpeg, "too_many_pixels"),
    _image("a GIF that claims 65535 x 65535", images.huge_gif, "too_many_pixels"),
    _image("a TIFF that claims 65500 x 65500", images.huge_tiff, "too_many_pixels"),
    _image("a WebP that claims 16383 x 16383", images.huge_webp, "too_many_pixels", "broken"),
    _image("a BMP that claims 30000 x 30000", images.huge_bmp, "too_many_pixels"),
    _image("a PNG with a comment of 256 MiB (zTXt)", images.png_with_text_bomb, "broken"),
    _image("a PNG with a colour profile of 256 MiB (iCCP)", images.png_with_profile_bomb, "broken"),
    _image("a PNG with 2,000 comments, together 1 GiB", images.png_with_much_text, "broken"),
    _image("a PNG of 10 x 10 with 256 MiB of pixels", images.png_with_endless_pixels, PREDICTED),
    _image("a TIFF with a strip of 256 MiB", images.tiff_with_a_bomb, PREDICTED, "broken"),
    _image("a TIFF whose pages go in circles", images.tiff_in_circles, PREDICTED),
    _image("a GIF with 200 frames", images.gif_with_many_frames, PREDICTED),
    _image("a JPEG whose EXIF is noise", images.jpeg_with_bad_exif, PREDICTED),
]

TASKS = [
    _shaped("a task without data", {}, "wrong_type"),
    _shaped("data that is null", {"data": None}, "wrong_type"),
    _shaped("data that is a list", {"data": ["image"]}, "wrong_type"),
    _shaped("data without the image", {"data": {"text": "x"}}, "missing_key"),
    _valued("an image that is null", None, "wrong_type"),
    _valued("an image that is a number", 5, "wrong_type"),
    _valued("an image that is a list", ["http://127.0.0.1/a.jpg", "http://127.0.0.1/b.jpg"], "wrong_type"),
    _valued("an image that is an object", {"url": "a.jpg"}, "wrong_type"),
    _valued("an image that is true", True, "wrong_type"),
    _valued("an empty text", "", "wrong_type"),
    _valued("spaces", "  \t", "wrong_type"),
    _valued("file:", "file:///etc/passwd", "unsupported"),
    _valued("ftp:", "ftp://127.0.0.1/a.jpg", "unsupported"),
    _valued("javascript:", "javascript:alert(1)", "unsupported"),
    _valued("a scheme that nobody knows", "gopher://127.0.0.1/a.jpg", "unsupported"),
    _valued("a path on this machine", "C:\\images\\a.jpg", "unsupported"),
    _valued("a file name alone", "a.jpg", "unsupported"),
    _valued("1 MB of text", "a" * 1_000_000, "bad_address"),
    _valued("a lone surrogate", "http://127.0.0.1/\ud800.jpg", "bad_address", "not_found", "unreachable"),
    _valued("data: with bad base64", "data:image/png;base64,@@@@@", "not_an_image", "empty"),
    _valued("data: without a comma", "data:image/png;base64", "not_an_image"),
    _valued("data: with nothing in it", "data:image/png;base64,", "empty"),
]

GROUPS = {
    "Servers: statuses": STATUSES,
    "Servers: hangs": HANGS,
    "Servers: broken and lying answers": LIES,
    "Servers: sizes": SIZES,
    "Servers: redirects": REDIRECTS,
    "Connections and addresses": CONNECTIONS,
    "Label Studio": STUDIO,
    "Files that are no images": NO_IMAGES,
    "Damaged images": DAMAGE,
    "Bombs and oddities": BOMBS,
    "Tasks": TASKS,
}
FAULTS = [fault for group in GROUPS.values() for fault in group]


def answers() -> dict[str, Answer]:
    """What the hostile server answers, by the first part of the path."""
    return {"404": plain("404 Not Found"), **{fault.slug: fault.answer for fault in FAULTS if fault.answer}}
