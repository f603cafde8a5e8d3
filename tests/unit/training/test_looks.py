"""Looks: the same photograph is known again, and others are told apart."""

from __future__ import annotations

import io
import itertools
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageEnhance

from yolo_backend.training.looks import MOST_BITS, chains, look_of

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


@pytest.mark.long
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
    assert list(chains(looks)) == [[number] for number in range(len(looks))]


@given(st.lists(st.integers(0, 2**64 - 1), max_size=30), st.integers(0, 63), st.integers(0, 2**64 - 1))
def test_a_chain_is_of_looks_that_differ_in_a_few_bits(others: list[int], bit: int, one: int) -> None:
    """Each is near one of its chain, and near none of another."""
    looks = [*others, one, one ^ (1 << bit), one ^ 0b11111]
    found = list(chains(looks))
    assert sorted(index for chain in found for index in chain) == list(range(len(looks)))
    of = {index: number for number, chain in enumerate(found) for index in chain}
    for b in range(len(looks)):
        for a in range(b):
            assert of[a] == of[b] or (looks[a] ^ looks[b]).bit_count() > MOST_BITS
    for chain in found:
        for at, index in enumerate(chain[1:], 1):
            assert any((looks[index] ^ looks[earlier]).bit_count() <= MOST_BITS for earlier in chain[:at])
    assert of[len(others)] == of[len(others) + 1]


def test_what_is_far_from_both_ends_joins_them() -> None:
    assert list(chains([0, 0b11111111, 0b1111, 1 << 63 | 0b11111110000])) == [[0, 2, 1], [3]]


def test_chains_are_found_across_thousands() -> None:
    rng = np.random.default_rng(0)
    looks = [int(number) for number in rng.integers(0, 2**63, 3000, dtype=np.uint64)]
    looks[2999] = looks[1] ^ 0b1011
    looks[700] = looks[300]
    assert [chain for chain in chains(looks) if len(chain) > 1] == [[1, 2999], [300, 700]]
    assert list(chains([])) == []


def test_thousands_that_are_all_near_each_other_take_no_longer() -> None:
    """As pairs they were twelve million."""
    looks = [sum(1 << bit for bit in bits) for bits in itertools.islice(itertools.combinations(range(64), 2), 2000)]
    looks += [1 << 40 | sum(1 << bit for bit in bits) for bits in itertools.combinations(range(30), 3)]
    began_at = time.process_time()
    assert [len(chain) for chain in chains(looks)] == [len(looks)]
    assert len(looks) > 5000
    assert time.process_time() - began_at < 5
