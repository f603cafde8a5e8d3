"""How many tasks a body has for which there is no memory. It is read, and not kept."""

from __future__ import annotations

from typing import Protocol

import ijson  # type: ignore[import-untyped]


class Readable(Protocol):
    """Gives bytes, piece by piece."""

    def read(self, size: int = -1, /) -> bytes: ...


def count_tasks(body: Readable) -> tuple[int, bool]:
    """The number of `tasks`, and whether there is a `params.context`. Raises ValueError if it isn't JSON.

    One text is in memory at a time, such as a `data:` address.
    """
    count, has_context = 0, False
    depth, field, inner, is_in_tasks = 0, "", "", False
    try:
        # Not `parse`, which gives each event its whole path: gigabytes if brackets are nested deep.
        for event, value in ijson.basic_parse(body, use_float=True):
            if event == "map_key":
                if depth == 1:
                    field, inner, is_in_tasks = value, "", False
                elif depth == 2:
                    inner = value
                elif depth == 3 and (field, inner) == ("params", "context"):
                    has_context = True
            elif event in {"start_map", "start_array"}:
                if depth == 1 and field == "tasks":
                    count, is_in_tasks = 0, event == "start_array"
                elif depth == 2 and is_in_tasks and event == "start_map":
                    count += 1
                depth += 1
            elif event in {"end_map", "end_array"}:
                depth -= 1
    except ijson.JSONError as error:
        raise ValueError(str(error)) from None
    return count, has_context
