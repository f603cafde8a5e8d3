"""What a variable of the labeling config stands for in a task's data: as Label Studio's page reads it."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from yolo_backend.labels.task_values import data_with, find_value, value_of

DATA: dict[str, Any] = {
    "image": "a.jpg",
    "photo": {"url": "b.jpg", "sizes": [{"small": "s.jpg"}, {"small": "t.jpg"}], "0": "zero.jpg"},
    "images": ["c.jpg", "d.jpg"],
    "grid": [["e.jpg", "f.jpg"]],
    "photo.dotted": "g.jpg",
    "größe": "h.jpg",
    "my key": "i.jpg",
    "with-dash": "j.jpg",
    "number": 7,
    "nothing": None,
    "images[1]": "k.jpg",
    "空": {"画": "l.jpg"},
}


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("$image", "a.jpg"),
        ("$photo.url", "b.jpg"),
        ("$photo[url]", "b.jpg"),
        ("$photo.sizes[1].small", "t.jpg"),
        ("$photo.sizes.0.small", "s.jpg"),
        ("$photo.0", "zero.jpg"),
        ("$images", ["c.jpg", "d.jpg"]),
        ("$images[0]", "c.jpg"),
        ("$images.1", "d.jpg"),
        ("$grid[0][1]", "f.jpg"),
        ("$photo.dotted", "g.jpg"),  # a key of that very name goes first
        ("$images[1]", "k.jpg"),
        ("$größe", "h.jpg"),
        ("$my key", "i.jpg"),
        ("$with-dash", "j.jpg"),
        ("$空.画", "l.jpg"),
        ("$nothing", None),
        ("https://cdn.example/$image", "https://cdn.example/a.jpg"),
        ("/photos/$photo.url?size=$number", "/photos/b.jpg?size=7"),
        ("$number/$image", "7/a.jpg"),
        ("always.jpg", "always.jpg"),
    ],
)
def test_a_variable_is_followed(value: str, expected: Any) -> None:
    assert value_of(DATA, value) == expected
    assert find_value(DATA, value) == expected


@pytest.mark.parametrize(
    ("value", "name"),
    [
        ("$picture", "picture"),
        ("$photo.path", "photo.path"),
        ("$image.url", "image.url"),
        ("$images[2]", "images[2]"),
        ("$images[-1]", "images[-1]"),
        ("$images.url", "images.url"),
        ("$nothing.url", "nothing.url"),
        ("$number[0]", "number[0]"),
        ("$image[0]", "image[0]"),  # no letters of a text
        ("https://cdn.example/$picture", "picture"),
        ("https://cdn.example/$nothing", "nothing"),
        ("https://cdn.example/$images", "images"),
        ("$images[" + "9" * 5000 + "]", "images[" + "9" * 5000 + "]"),
    ],
)
def test_what_is_not_there_is_named(value: str, name: str) -> None:
    with pytest.raises(KeyError) as raised:
        value_of(DATA, value)
    assert raised.value.args == (name,)
    assert find_value(DATA, value) is None


@pytest.mark.parametrize("data", [None, [], "text", 7])
def test_without_data_there_is_nothing(data: Any) -> None:
    assert find_value(data, "$image") is None


@pytest.mark.parametrize(
    ("value", "data"),
    [
        ("$image", {"image": "x"}),
        ("$image.url", {"image": {"url": "x"}}),
        ("$images[0]", {"images": ["x"]}),
        ("$pages[0].image", {"pages": [{"image": "x"}]}),
        ("$with-dash", {"with-dash": "x"}),
        ("$my key", {"my key": "x"}),
        ("$images[1]", None),
        ("/photos/$file", None),
        ("$[0]", None),
        ("always.jpg", None),
    ],
)
def test_data_of_a_new_task(value: str, data: dict[str, Any] | None) -> None:
    assert data_with(value, "x") == data


@given(st.lists(st.sampled_from(["image", "url", "a1", "0"]), min_size=1, max_size=5))
def test_what_was_put_in_is_found_again(steps: list[str]) -> None:
    value = "$" + ".".join(steps)
    data = data_with(value, "x")
    assert steps[0] == "0" if data is None else value_of(data, value) == "x"
