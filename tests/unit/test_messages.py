"""Words that survive the way to a person."""

from __future__ import annotations

import pytest

from yolo_backend.messages import first_line, named, shortened, to_latin1


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain words", "plain words"),
        ("Größe, naïve, ½ ©", "Größe, naïve, ½ ©"),
        ("two\nlines\tand\x00more", "two lines and more"),
        ("  around  ", "around"),
        ("車", "U+8ECA"),
        ("a車b", "aU+8ECAb"),
        ("人 車", "U+4EBA U+8ECA"),
        ("Ленинград", "U+041B U+0435 U+043D U+0438..."),
        ("🚗", "U+1F697"),
        ("\x80\x9f", ""),
        ("\ud800", "U+D800"),
        ("1 – 2 … “x”", "1 U+2013 2 U+2026 U+201CxU+201D"),
    ],
)
def test_a_line_that_latin_1_can_say(text: str, expected: str) -> None:
    assert to_latin1(text) == expected
    to_latin1(text).encode("latin-1")


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (ValueError("one\ntwo"), "one"),
        (ValueError("\n  two"), "two"),
        (ValueError(), "ValueError"),
        (ValueError("\n"), "ValueError"),
    ],
)
def test_the_first_line_that_says_something(error: Exception, expected: str) -> None:
    assert first_line(error) == expected


@pytest.mark.parametrize(
    ("name", "expected"), [("car", "car"), ("Größe", "Größe"), ("車", "(label 2, 車)"), ("œ", "(label 2, œ)")]
)
def test_a_name_that_latin_1_cannot_say_has_its_place(name: str, expected: str) -> None:
    assert named(name, 2) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [("a" * 20, "a" * 20), ("a" * 21, "a" * 17 + "..."), (" a\n\tb\x00c ", "a b c"), ("", "")],
)
def test_a_strangers_text_is_a_short_part_of_one_line(text: str, expected: str) -> None:
    assert shortened(text, 20) == expected
