"""The picture of docs/architecture.md: which wing imports which, read from the code. `python -m sparkfleet.docs`"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "architecture.md"
BEGIN = "<!-- picture: begin; what stands here is generated, and edits are lost -->\n"
END = "<!-- picture: end -->"
LEFT_OUT = ("settings", "shared")
"""Wings that nearly every other one uses: their arrows would hide the rest."""


def wing_of(module: str) -> str | None:
    """The wing that a dotted name belongs to; None where it is none of ours."""
    top, _, rest = module.partition(".")
    if top in ("tasks", "sparkhost"):
        return top
    if top != "sparkfleet":
        return None
    name = rest.partition(".")[0]
    return name if (ROOT / "sparkfleet" / name / "__init__.py").exists() and name else "shared"


def imports(path: Path) -> Iterator[str]:
    """The modules that a file imports, those within functions too."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            # `from sparkfleet import child`: the name may be a wing.
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def arrows() -> set[tuple[str, str]]:
    """Wing → wing, for each import of the code from one into another."""
    found = set()
    for folder, above in (("sparkfleet", ROOT), ("tasks", ROOT), ("files/host/sparkhost", ROOT / "files" / "host")):
        for path in sorted((ROOT / folder).rglob("*.py")):
            own = wing_of(".".join(path.relative_to(above).with_suffix("").parts))
            for module in imports(path):
                other = wing_of(module)
                if own and other and own != other:
                    found.add((own, other))
    return found


def picture() -> list[str]:
    """The picture as Mermaid, a line each."""
    shown = sorted(pair for pair in arrows() if not {*pair} & {*LEFT_OUT})
    wings = sorted({wing for pair in shown for wing in pair} - {"tasks", "sparkhost"})
    return [
        "```mermaid",
        "flowchart LR",
        '  subgraph controller["controller: sparkfleet/"]',
        *(f"    {wing}" for wing in wings),
        "  end",
        '  tasks["tasks/: what each measure wants"]',
        '  sparkhost["files/host/sparkhost/: runs on hosts"]',
        *(f"  {one} --> {other}" for one, other in shown),
        "```",
    ]
