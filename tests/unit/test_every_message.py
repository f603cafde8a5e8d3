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
_TELLING = 12  # characters; less may stand anywhere
_WORDS = 4  # fewer are a name, or a part of another message


def texts() -> Iterator[tuple[str, str]]:
    """Each text that the program holds, docstrings aside, with the file it is in; what is filled in is a `…`."""
    root = Path(yolo_backend.__path__[0])
    for path in sorted(root.rglob("*.py")):
        where = path.relative_to(root).as_posix()
        if not where.startswith("demo/"):
            for text in _sentences(ast.parse(path.read_text())):
                yield where, " ".join(re.sub(r"%[-+.\d]*[sdgrf]", HOLE, text).split())


def messages() -> list[tuple[str, str]]:
    """The texts that are sentences."""
    return sorted(
        {
            (where, text)
            for where, text in texts()
            if len(text.replace(HOLE, "").split()) >= _WORDS and not text.startswith("<")
        }
    )


def _sentences(node: ast.AST) -> Iterator[str]:
    match node:
        case ast.Expr(value=ast.Constant()):  # a docstring
            return
        case ast.Constant(value=str(text)):
            yield text
        case ast.JoinedStr(values=parts):
            yield "".join(str(part.value) if isinstance(part, ast.Constant) else HOLE for part in parts)
        case _:
            for child in ast.iter_child_nodes(node):
                yield from _sentences(child)


def test_the_list_holds_every_message(request: pytest.FixtureRequest) -> None:
    written = [f"{where}: {text}" for where, text in messages()]
    if request.config.getoption("--write-docs"):
        LIST.write_text("\n".join(written) + "\n", encoding="utf-8")
    known = LIST.read_text(encoding="utf-8").splitlines()
    changed = sorted(set(written) ^ set(known))
    assert not changed, "Read these as whoever meets them: what, where, what to do? Then write the list anew, as above."


def test_a_message_is_a_line_of_latin_1_in_our_words() -> None:
    for where, text in messages():
        plain = text.replace(HOLE, "")
        assert plain.isprintable(), (where, text)
        assert not re.search(r"[^\x20-\xff→·]", plain), (where, text)
        assert not re.search(r"\bErrno\b|\bTraceback\b|\bException\b", text), (where, text)


def test_what_the_docs_explain_is_said() -> None:
    """Of each message in a heading, its longest part without names and numbers."""
    page = (Path(yolo_backend.__path__[0]) / "server" / "templates" / "status.html").read_text(encoding="utf-8")
    said = "\n".join([*(text for _, text in texts()), page])
    headings = re.findall(r"^### (.*`.*)$", TROUBLESHOOTING.read_text(encoding="utf-8"), re.MULTILINE)
    quoted = [message for heading in headings for message in re.findall(r"`([^`]+)`", heading)]
    filled_in = re.compile(
        r"[…\d\"()\[\]=:;,/]|\.\w+|--\w+|https?:|\b[A-Z]{3,}_?[A-Z_]*\b"
        r"|\b(?:is an?|answer|want|which is|pull|The certificate)\b"
    )
    parts = [max(filled_in.split(message), key=len).strip(" .") for message in quoted]
    telling = [part for part in parts if len(part) >= _TELLING]
    assert len(telling) > 120
    assert [part for part in telling if part not in said] == []
