"""Room in bytes is taken, refused and given back."""

import threading

import pytest

from yolo_backend.serving.held import HeldBytes, Share


def test_what_has_no_room_takes_nothing() -> None:
    held = HeldBytes(100)
    assert held.take(60)
    assert not held.take(41)
    assert held.held_bytes == 60
    assert held.take(40)
    held.give_back(100)
    assert held.held_bytes == 0


def test_more_than_is_held_cannot_be_given_back() -> None:
    held = HeldBytes(100)
    assert held.take(10)
    with pytest.raises(ValueError, match="11 bytes are given back, but 10 are held"):
        held.give_back(11)
    assert held.held_bytes == 10


def test_a_share_gives_back_what_it_took_when_its_block_fails() -> None:
    held = HeldBytes(100)

    def fail() -> None:
        with Share(held) as share:
            assert share.take(80)
            assert not share.take(30)
            share.give_back(20)
            assert held.held_bytes == 60
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert held.held_bytes == 0


def test_room_that_is_given_back_is_waited_for() -> None:
    held = HeldBytes(10)
    assert held.take(10)
    threading.Timer(0.1, lambda: held.give_back(10)).start()
    assert held.take_within(10, 5)
