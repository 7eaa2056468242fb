"""Pages that people find their way by: the index has every page, links lead somewhere, the picture is the code's."""

from __future__ import annotations

import re
from pathlib import Path

from sparkfleet import architecture, docs

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
LINK = re.compile(r"\]\(([^)\s]+)\)")


def links(page: Path) -> set[Path]:
    """The files of the project that a page links to."""
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    targets = {target.partition("#")[0] for target in LINK.findall(text) if "://" not in target}
    return {(page.parent / target).resolve() for target in targets if target}


def test_the_index_has_every_page() -> None:
    pages = {page for page in DOCS.glob("*.md") if page.name != "README.md"}
    assert pages - links(DOCS / "README.md") == set()


def test_no_link_leads_nowhere() -> None:
    lost = {
        f"{page.relative_to(ROOT)}: {target}"
        for page in (ROOT / "README.md", *DOCS.rglob("*.md"))
        for target in links(page)
        if not target.exists()
    }
    assert lost == set()


def test_the_readme_is_one_that_is_read() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 140
    order = ["On your Spark: one command", "What it does to a host", "A fleet: three commands", "Audit", "The lab"]
    assert [line[3:] for line in text.splitlines() if line[3:] in order and line.startswith("## ")] == order


def test_the_picture_is_made_of_the_code() -> None:
    assert architecture.PAGE.read_text(encoding="utf-8") == docs.architecture_page()


def test_the_audit_uses_nothing_of_the_deploy() -> None:
    """The same boundary as the picture shows; `sparkhost` is what is being judged."""
    assert ("deploy", "sparkhost") in architecture.arrows() or ("operations", "sparkhost") in architecture.arrows()
    assert not {("audit", "tasks"), ("audit", "sparkhost")} & architecture.arrows()
