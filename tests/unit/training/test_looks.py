"""Looks: the same photograph is known again, and others are told apart."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageEnhance

from yolo_backend.training.looks import MOST_BITS, alike, look_of

CHANGES: dict[str, Callable[[Image.Image], Image.Image]] = {
    "smaller": lambda image: image.resize((image.width // 3, image.height // 3)),
    "larger": lambda image: image.resize((image.width * 2, image.height * 2)),
    "compressed": lambda image: compressed(image, 40),
    "brighter": lambda image: ImageEnhance.Brightness(image).enhance(1.15),
    "paler": lambda image: ImageEnhance.Contrast(image).enhance(0.85),
    "grey": lambda image: image.convert("L").convert("RGB"),
    "all of it": lambda image: compressed(ImageEnhance.Brightness(image.resize((320, 240))).enhance(1.1), 50),
}


def compressed(image: Image.Image, quality: int) -> Image.Image:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=quality)
    return Image.open(io.BytesIO(file.getvalue()))


def look(image: Image.Image) -> int:
    return look_of(np.asarray(image))


@pytest.mark.parametrize("change", CHANGES)
def test_a_photograph_that_was_changed_a_little_is_the_same(bccd_files: list[Path], change: str) -> None:
    for path in bccd_files[:12]:
        photograph = Image.open(path).convert("RGB")
        assert (look(photograph) ^ look(CHANGES[change](photograph))).bit_count() <= MOST_BITS, path


def test_photographs_of_the_same_kind_of_scene_are_not_the_same(bccd_files: list[Path]) -> None:
    """All show red cells on white, with the same microscope; half of them are mirrored ones of the other half."""
    looks = [look(Image.open(path).convert("RGB")) for path in bccd_files]
    distances = [(a ^ b).bit_count() for number, a in enumerate(looks) for b in looks[:number]]
    assert min(distances) > 2 * MOST_BITS
    assert list(alike(looks)) == []


@given(st.lists(st.integers(0, 2**64 - 1), max_size=30), st.integers(0, 63), st.integers(0, 2**64 - 1))
def test_pairs_are_those_that_differ_in_a_few_bits(others: list[int], bit: int, one: int) -> None:
    near, far = one ^ (1 << bit), one ^ 0b11111
    looks = [*others, one, near, far]
    pairs = {(a, b) for b in range(len(looks)) for a in range(b) if (looks[a] ^ looks[b]).bit_count() <= MOST_BITS}
    assert set(alike(looks)) == pairs
    assert (len(others), len(others) + 1) in pairs
    assert (len(others), len(others) + 2) not in pairs


def test_pairs_are_found_across_thousands() -> None:
    rng = np.random.default_rng(0)
    looks = [int(number) for number in rng.integers(0, 2**63, 3000, dtype=np.uint64)]
    looks[2999] = looks[1] ^ 0b1011
    looks[700] = looks[300]
    assert sorted(alike(looks)) == [(1, 2999), (300, 700)]
    assert list(alike([])) == []
