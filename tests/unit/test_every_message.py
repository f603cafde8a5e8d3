"""Every message that a person may read, in one list: whoever changes one reads it beside its neighbours.

`pytest tests/unit/test_every_message.py --write-docs` writes the list anew.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import yolo_backend

LIST = Path(__file__).parent.parent / "data" / "messages.txt"
TROUBLESHOOTING = Path(__file__).parent.parent.parent / "docs" / "troubleshooting.md"
HOLE = "…"
_WORDS = 3  # fewer are a part of another message
LOGS = {"info", "warning", "error"}
# Errors that are met and told by us in other words, and those of a caller's own code.
NOT_FOR_PEOPLE = {"KeyError", "TypeError", "AssertionError", "NotImplementedError", "RuntimeError"}


def messages() -> Iterator[tuple[str, str]]:
    """Each message with the file it is in; what is filled in is a `…`."""
    root = Path(yolo_backend.__path__[0])
    for path in sorted(root.rglob("*.py")):
        where = path.relative_to(root).as_posix()
        if where.startswith("demo/"):
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            for text in _told_by(node):
                if len(text.replace(HOLE, "").split()) >= _WORDS and not text.startswith("<"):
                    yield where, " ".join(text.split())


def _told_by(node: ast.AST) -> Iterator[str]:
    match node:
        case ast.Call(func=ast.Attribute(value=ast.Name(id="log"), attr=level), args=[template, *_]) if level in LOGS:
            yield from (re.sub(r"%[-+.\d]*[sdgrf]", HOLE, text) for text in _texts(template))
        case ast.Call(func=ast.Name(id=name), args=arguments) if _is_for_people(name):
            for argument in arguments:
                yield from _texts(argument)
        case ast.FunctionDef(returns=ast.Name(id="str") | ast.BinOp(left=ast.Name(id="str"))):
            for inner in ast.walk(node):
                if isinstance(inner, ast.Return) and inner.value is not None:
                    yield from _texts(inner.value)


def _is_for_people(name: str) -> bool:
    return (name.endswith("Error") and name not in NOT_FOR_PEOPLE) or name in {"Failure", "Found", "kind"}


def _texts(node: ast.expr) -> Iterator[str]:
    match node:
        case ast.Constant(value=str(text)):
            yield text
        case ast.JoinedStr(values=parts):
            yield "".join(str(part.value) if isinstance(part, ast.Constant) else HOLE for part in parts)
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            for first in list(_texts(left)) or [HOLE]:
                for second in list(_texts(right)) or [HOLE]:
                    yield first + second
        case ast.IfExp(body=body, orelse=other):
            yield from _texts(body)
            yield from _texts(other)
        case ast.BoolOp(values=values):
            for value in values:
                yield from _texts(value)


def test_the_list_holds_every_message(request: pytest.FixtureRequest) -> None:
    written = "".join(f"{where}: {text}\n" for where, text in sorted(set(messages())))
    if request.config.getoption("--write-docs"):
        LIST.write_text(written, encoding="utf-8")
    assert LIST.read_text(encoding="utf-8").splitlines() == written.splitlines(), (
        "Read the new message as whoever meets it: what it is, where, what to do? Then write the list anew, as above."
    )


@pytest.mark.parametrize(("where", "text"), sorted(set(messages())))
def test_a_message_reaches_the_person_whole(where: str, text: str) -> None:
    """In Settings > Model it is one line of Latin-1, cut at 240 characters; what is filled in needs room, too."""
    assert text.replace(HOLE, "").isprintable(), where
    text.replace(HOLE, "").encode("latin-1")
    assert not re.search(r"\bErrno\b|\bTraceback\b|\bNone$|Exception\b", text), where
    assert not text.endswith((". ", ": ", ",")), where


def headings() -> list[str]:
    return re.findall(r"^### `(.+)`$", TROUBLESHOOTING.read_text(encoding="utf-8"), re.MULTILINE)


@pytest.mark.parametrize("heading", headings())
def test_what_the_docs_explain_is_said(heading: str) -> None:
    said = {text for _, text in messages()}
    wanted = [part.strip() for part in heading.split(HOLE) if len(part.strip()) > 8]
    assert wanted, "too little to be found by"
    assert any(all(part in text for part in wanted) for text in said), f"nothing says: {heading}"
