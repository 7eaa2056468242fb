"""docs/refused.md has every refusal of the code, by its message.

What would make it red: a `raise Refused(...)` with a new text, or one whose words were changed.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "refused.md"
FOLDERS = ("files/host/sparkhost", "tasks")
PART = "…"
"""Stands for what differs from host to host."""


def raised(tree: ast.AST) -> Iterator[ast.expr]:
    """What refusals are made of: the argument of `Refused(...)`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Refused" and node.args:
            yield node.args[0]


def text_of(value: ast.expr) -> str:
    """A message with `…` for each part that is worked out; `…` alone where all of it is."""
    match value:
        case ast.Constant(value=str() as text):
            return text
        case ast.JoinedStr():
            parts = [text_of(part) if isinstance(part, ast.Constant) else PART for part in value.values]
            return "".join(parts)
        case _:
            return PART


def messages() -> dict[str, str]:
    """Every message of the code, and a file that has it."""
    found = {}
    for folder in FOLDERS:
        for path in sorted((ROOT / folder).rglob("*.py")):
            for value in raised(ast.parse(path.read_text(encoding="utf-8"))):
                found[" ".join(text_of(value).split())] = str(path.relative_to(ROOT))
    return found


def test_every_refusal_stands_in_the_page() -> None:
    page = " ".join(PAGE.read_text(encoding="utf-8").replace("\\|", "|").split())
    lacking = {text: path for text, path in messages().items() if len(text.replace(PART, "").strip()) > 3}
    assert len(lacking) > 30, "the search finds no refusals any more"
    lacking = {text: path for text, path in lacking.items() if text not in page}
    assert not lacking, f"docs/refused.md lacks: {lacking}"


def test_the_page_has_none_that_the_code_lacks() -> None:
    known = messages()
    rows = [line for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("| ``")]
    told = [row.split("``")[1].strip().replace("\\|", "|") for row in rows]
    assert told
    assert not [text for text in told if text not in known]
