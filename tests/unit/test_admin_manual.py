"""Man pages and completion: groff finds no fault in any page, and bash completes every command."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from sparkfleet.admin.manual import hosts_programs
from sparkfleet.cli import main


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("man")
    assert main(["man", "--write", str(folder)]) == 0
    return sorted((folder / "man1").iterdir())


def test_every_program_has_a_page_with_all_that_help_says(
    pages: list[Path],
) -> None:
    assert {page.stem for page in pages} == {"sparkfleet", *hosts_programs()}
    assert len(pages) > 10
    for page in pages:
        text = page.read_text()
        assert f"\n{page.stem.replace('-', chr(92) + '-')} \\- " in text, page.stem
        name_line = text.split(".SH NAME\n")[1].split("\n")[0]
        assert len(name_line.partition(" \\- ")[2]) > 12, name_line
    whole = next(page for page in pages if page.stem == "sparkfleet").read_text()
    for words in ("SPARKFLEET LOCK HOLD", "SPARKFLEET AUDIT DIFF", "SPARKFLEET UNDO"):
        assert f'.SH "{words}"' in whole
    assert "\\-\\-canary" in whole


@pytest.mark.skipif(not shutil.which("groff"), reason="groff is not installed")
def test_groff_finds_no_fault_and_shows_every_line(pages: list[Path]) -> None:
    for page in pages:
        words = ["groff", "-man", "-Tutf8", "-Kutf8", "-ww", "-rLL=300n", str(page)]
        shown = subprocess.run(words, capture_output=True, text=True, check=True)
        assert shown.stderr == "", page.name
        assert "--" in shown.stdout, "a dash is a dash, to be copied"


@pytest.mark.parametrize(
    ("typed", "found"),
    [
        ("lo", {"lock"}),
        ("lock ", {"status", "hold", "release", "--help"}),
        ("lock hold --m", {"--message"}),
        ("deploy --on", {"--only"}),
        ("deploy @", {"@local"}),
        ("--fleet x audit di", {"diff"}),
        ("completion ", {"bash", "zsh", "--help"}),
    ],
)
def test_bash_completes(capsys: pytest.CaptureFixture[str], typed: str, found: set[str]) -> None:
    assert main(["completion", "bash"]) == 0
    words = ["sparkfleet", *typed.split(" ")]
    listed = " ".join(f"'{word}'" for word in words)
    script = f"{capsys.readouterr().out}\nCOMP_WORDS=({listed}); COMP_CWORD={len(words) - 1}\n_sparkfleet\n"
    script += 'printf "%s\\n" "${COMPREPLY[@]}"\n'
    done = subprocess.run(["bash", "-euc", script], capture_output=True, text=True, check=True)
    assert set(done.stdout.split()) == found


def test_a_program_without_a_page(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["man", "spark-rum"]) == 4
    assert capsys.readouterr().err == "sparkfleet: 'spark-rum' has no page: did you mean spark-run?\n"
