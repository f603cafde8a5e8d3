"""Identities: whose image it is, for how long it is known, and how many of them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from yolo_backend.images.identity import Identities, Identity, identity_key, is_lasting
from yolo_backend.images.sources import Inline, LocalFile, Remote, Source, resolve_source
from yolo_backend.images.versions import Validators

DAY_S = 24 * 3600


@dataclass
class Owner:
    """Label Studio as it is told from others."""

    url: str = "http://studio:8080"
    token: str | None = "t0ken"


def identity(name: str = "a", version: Validators | None = None) -> Identity:
    return Identity(name.encode() * 32, version, is_lasting=True)


def test_a_key_tells_apart_whose_image_it_is() -> None:
    value = "/data/upload/1/0123abcd-a.jpg"
    owners = [None, Owner(), Owner(token="another"), Owner(token=None), Owner(url="http://other:8080")]
    keys = {identity_key(value, owner) for owner in owners}
    assert len(keys) == len(owners)
    assert identity_key(f" {value}\n", Owner()) == identity_key(value, Owner())
    assert identity_key(value + "x", Owner()) not in keys


def test_a_whole_address_has_another_key_where_label_studio_has_another_one_outside() -> None:
    whole, path, inline = "https://x.org/data/upload/1/0123abcd-a.jpg", "/data/upload/1/0123abcd-a.jpg", "data:,x"
    outside = [None, "https://x.org", "https://y.org"]
    assert len({identity_key(whole, Owner(), url) for url in outside}) == 3
    assert len({identity_key(path, Owner(), url) for url in outside}) == 1
    assert len({identity_key(inline, Owner(), url) for url in outside}) == 1


@pytest.mark.parametrize("value", ["", "\ud800", "data:,\x00", None, 3, ["a"], {"a": []}])
def test_any_value_has_a_key(value: object) -> None:
    assert len(identity_key(value, None)) == 32


@pytest.mark.parametrize("prefix", ["", "/label-studio"])
@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("/data/upload/1/0123abcd-a.jpg", True),
        ("/data/upload/17/0123abcd-my photo (1) größe.jpg", True),
        ("{studio}/data/upload/1/0123abcd-a.jpg", True),
        ("data:,x", True),
        ("/data/upload/1/a.jpg", False),
        ("/data/upload/0123abcd-a.jpg", False),
        ("/data/upload/1/0123abcd-a/../b.jpg", False),
        ("/data/upload/1/0123abcd-a.jpg?b", False),
        ("/data/upload/../local-files/?d=0123abcd-a.jpg", False),
        ("/data/local-files/?d=a.jpg", False),
        ("/storage-data/uploaded/?filepath=upload/1/0123abcd-a.jpg", False),
        ("s3://bucket/a.jpg", False),
        ("http://elsewhere/data/upload/1/0123abcd-a.jpg", False),
        ("{studio}.elsewhere/data/upload/1/0123abcd-a.jpg", False),
        ("{studio}@elsewhere/data/upload/1/0123abcd-a.jpg", False),
    ],
)
def test_uploads_and_inline_content_last(prefix: str, value: str, expected: bool) -> None:
    studio = Owner("http://studio:8080" + prefix)
    source = resolve_source(value.format(studio=studio.url), 7, studio.url, None)
    assert is_lasting(source, studio) == expected


def test_an_upload_by_its_address_outside_lasts() -> None:
    studio = Owner()
    for host, expected in (("https://x.org/ls", True), ("https://x.org", False)):
        value = f"{host}/data/upload/1/0123abcd-a.jpg"
        source = resolve_source(value, 7, studio.url, None, lambda: "https://x.org/ls")
        assert is_lasting(source, studio) == expected


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        (Inline(b"x"), True),
        (LocalFile(Path("/data/upload/1"), "0123abcd-a.jpg"), False),
        (Remote("http://studio:8080/data/upload/1/0123abcd-a.jpg"), False),
    ],
)
def test_without_label_studio_nothing_is_an_upload(source: Source, expected: bool) -> None:
    assert is_lasting(source, None) == expected


def test_after_a_day_it_is_forgotten() -> None:
    now = 1000.0
    identities = Identities(10_000, clock=lambda: now)
    identities.keep(b"a", identity())
    now += DAY_S - 1
    assert identities.find(b"a") == identity()
    now += 1
    assert identities.find(b"a") is None


def test_those_met_last_are_kept() -> None:
    identities = Identities(1500)
    for name in ("a", "b", "c"):
        identities.keep(name.encode(), identity(name))
    assert identities.find(b"a") == identity("a")
    identities.keep(b"d", identity("d"))
    assert [identities.find(key) is not None for key in (b"a", b"b", b"c", b"d")] == [True, False, True, True]


def test_long_addresses_count() -> None:
    identities = Identities(5000)
    long = identity("l", Validators("If-Modified-Since", "", "x" * 4400))
    identities.keep(b"a", identity("a"))
    identities.keep(b"long", long)
    assert identities.find(b"a") is None
    assert identities.find(b"long") == long
    identities.keep(b"longer", identity("l", Validators("If-Modified-Since", "", "x" * 4600)))
    assert identities.find(b"longer") is None
    assert identities.find(b"long") == long


def test_without_memory_nothing_is_kept() -> None:
    identities = Identities(0)
    identities.keep(b"a", identity())
    assert identities.find(b"a") is None
