"""Known errors in texts: each rule by its own two examples, and texts that people have pasted."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from sparkhost.tools.doctor import text
from sparkhost.tools.doctor.cli import main
from sparkhost.tools.doctor.rules import RULES, SAYS_MORE
from sparkhost.tools.doctor.rules.rule import Rule

ROOT = Path(__file__).resolve().parents[2]
# Shapes of texts that people have pasted, and what is right for each.
TEXTS: dict[str, tuple[str, list[str]]] = json.loads(Path(__file__).with_name("doctor_texts.json").read_text())


def ids_in(content: str) -> set[str]:
    return {finding.id for finding in text.look(content, "x")}


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.id)
def test_a_rule_finds_its_own_example_and_no_more(rule: Rule) -> None:
    for content, wanted in ((rule.hit, True), (rule.miss, False)):
        searched, shown = text.lines_of(content)
        assert (rule.line_in(searched, shown) is not None) is wanted, content
    assert rule.source
    assert rule.id in ids_in(rule.hit)


def test_what_says_more_is_known() -> None:
    ids = {rule.id for rule in RULES}
    assert {*SAYS_MORE, *(other for others in SAYS_MORE.values() for other in others)} <= ids


@pytest.mark.parametrize("name", TEXTS)
def test_a_text_of_a_person(name: str) -> None:
    content, expected = TEXTS[name]
    assert ids_in(content) == set(expected)


@pytest.mark.parametrize(
    "line",
    [
        "Sep 01 02:11:07 spark1 python[42]: {}",
        "2026-09-01T02:11:07+0000 spark1 python[42]: {}",
        "trainer-1  | {}",
        '{{"time": "x", "level": "error", "msg": "{}"}}',
        '{{"log": "{}\\n", "stream": "stderr"}}',
        "\x1b[31m{}\x1b[0m",
    ],
)
def test_a_line_is_found_in_whatever_its_writer_puts_around_it(line: str) -> None:
    assert ids_in(f"started\n{line.format('Killed')}\nmore") == {"killed"}


def test_the_end_of_a_long_log_counts(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with log.open("w") as stream:
        stream.write("torch.OutOfMemoryError: CUDA out of memory. long ago, mended since\n")
        for step in range(90_000):
            stream.write(f"step {step} loss 2.12345 lr 0.0001 tokens 12345678 {'.' * 20}\n")
        stream.write("Killed\n")
    assert log.stat().st_size > text.LARGEST
    assert ids_in(text.read_file(log)) == {"killed"}
    with subprocess.Popen(["cat", str(log)], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        piped = text.read_end(process.stdout)
    assert piped == text.read_file(log)
    assert len(piped) <= text.LARGEST


def test_a_pipe_is_held_only_as_far_as_it_counts() -> None:
    """A log without an end must not take the memory: what is kept of it stays near `largest`."""

    class Endless(io.RawIOBase):
        left = 4000

        def readable(self) -> bool:
            return True

        def read(self, size: int = -1, /) -> bytes:
            self.left -= 1
            return b"x" * size if self.left > 0 else b""

    assert len(text.read_end(Endless(), 1 << 20)) <= 1 << 20  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("content", "shown"),
    [
        ("step 1 loss 2.1\nRuntimeError: shape mismatch [3, 4]\nbye\n", "  RuntimeError: shape mismatch [3, 4]\n"),
        ("step 1 loss 2.1\nThe killed process was another one\n", "no line looks like one"),
        ("0 errors, 12 passed\nno errors\n", "no line looks like one"),
    ],
)
def test_what_is_not_known_is_said_to_be_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str, shown: str
) -> None:
    log = tmp_path / "log"
    log.write_text(content)
    assert main([str(log)]) == 3
    out = capsys.readouterr().out
    assert "no known error in this text" in out
    assert shown in out
    assert "nothing is wrong" not in out
    assert main(["--json", str(log)]) == 3
    assert json.loads(capsys.readouterr().out)["unknown"][0]["where"] == str(log)


def test_a_file_that_cannot_be_read_is_no_text_without_errors(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mem").symlink_to("/proc/self/mem")
    assert main([str(tmp_path / "mem")]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_head_ends_it_without_a_traceback(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("\n".join(rule.hit for rule in RULES))
    code = "import sys; from sparkhost.tools.doctor.cli import main; sys.exit(main())"
    done = subprocess.run(
        ["/bin/sh", "-c", f'"{sys.executable}" -c "{code}" "{log}" | head -n 1'],
        env={**os.environ, "PYTHONPATH": str(ROOT / "files" / "host")},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.stderr == ""
    assert done.stdout.count("\n") == 1
