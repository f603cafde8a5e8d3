"""What a `$variable` of a labeling config stands for in a task's data, as Label Studio's page reads it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

_VARIABLE = re.compile(r"\$[\w\[\].{}]+")


def value_of(data: Mapping[str, Any], value: str) -> Any:
    """What `value`, such as `$image`, `$image.url`, `$images[0]` or `/photos/$file`, means in this task's data.

    A key of exactly that name goes before a path. Raises KeyError with the name that isn't there.
    """
    name = value.removeprefix("$")
    if value.startswith("$") and (name in data or _VARIABLE.fullmatch(value)):
        return _follow(data, name)

    def text(match: re.Match[str]) -> str:
        found = _follow(data, match[0][1:])
        if isinstance(found, (str, int, float)):
            return str(found)
        raise KeyError(name if match.start() == 0 and "$" not in name else match[0][1:])

    return _VARIABLE.sub(text, value)


def find_value(data: Any, value: str) -> Any:
    """The same; None if it isn't there."""
    try:
        return value_of(data, value) if isinstance(data, Mapping) else None
    except KeyError:
        return None


def data_with(value: str, content: Any) -> dict[str, Any] | None:
    """A task's data in which `value` means `content`; None if there can't be any, as for `$images[1]` or `/x/$file`."""
    if not _VARIABLE.fullmatch(value):
        name = value.removeprefix("$")
        return {name: content} if value.startswith("$") and not re.search(r"[$/]", name) else None
    data = content
    for step in reversed(_steps(value.removeprefix("$"))):
        if step.isdecimal():
            if step.strip("0"):  # only the first can be made
                return None
            data = [data]
        else:
            data = {step: data}
    return data if isinstance(data, dict) else None


def _follow(data: Mapping[str, Any], name: str) -> Any:
    if name in data:
        return data[name]
    found: Any = data
    for step in _steps(name):
        if isinstance(found, Mapping) and step in found:
            found = found[step]
        elif isinstance(found, list) and re.fullmatch("[0-9]{1,9}", step) and int(step) < len(found):
            found = found[int(step)]
        else:
            raise KeyError(name)
    return found


def _steps(name: str) -> list[str]:
    return re.findall(r"[^.\[\]]+", name)


def fields_of(data: Mapping[str, Any], value: str) -> set[str]:
    """The fields of a task's data that `value_of` reads: whole fields, even if only a part of one is meant."""
    names = [value.removeprefix("$"), *(match[0][1:] for match in _VARIABLE.finditer(value))]
    return {field for name in names for field in (name, *_steps(name)[:1]) if field in data}
