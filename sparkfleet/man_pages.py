"""Man pages of the tools, made of their own --help. `python -m sparkfleet.docs` writes them.

They lie in the repository, as what argparse prints differs from one Python to the next.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from sparkhost.base.files import MANAGED
from sparkhost.tools import overview
from sparkhost.tools.doctor import cli as doctor
from sparkhost.tools.estimate import cli as estimate
from sparkhost.tools.fieldreport import cli as field_report
from sparkhost.tools.profile import cli as profile

DIRECTORY = Path(__file__).resolve().parents[1] / "files" / "tools" / "man"
WIDTH = 100
PROGRAMS: dict[str, Callable[[Sequence[str]], int]] = {
    "spark": overview.main,
    "spark-doctor": doctor.main,
    "spark-estimate": estimate.main,
    "spark-field-report": field_report.main,
    "spark-profile": profile.main,
}


def roff(text: str) -> str:
    """Text as man(7) takes it literally: a line that begins with a dot is no request."""
    return re.sub(r"^(?=[.'])", r"\\&", text.replace("\\", "\\e").replace("-", "\\-"), flags=re.MULTILINE)


def page(name: str) -> str:
    """The whole page of a program."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.suppress(SystemExit), columns(WIDTH):
        PROGRAMS[name](["--help"])
    usage, _, rest = out.getvalue().partition("\n\n")
    about, _, body = rest.partition("\n\n")
    return "\n".join(
        [
            f'.\\" {MANAGED} (measure: tools), made by python -m sparkfleet.docs',
            f".TH {name.upper()} 1",
            f".SH NAME\n{name} \\- {roff(' '.join(about.split()))}",
            f".SH SYNOPSIS\n.nf\n{roff(usage)}\n.fi",
            f".SH OPTIONS AND EXAMPLES\n.nf\n{roff(body.rstrip())}\n.fi\n",
        ]
    )


@contextlib.contextmanager
def columns(width: int) -> Iterator[None]:
    """argparse wraps by COLUMNS, which is each terminal's."""
    before = os.environ.get("COLUMNS")
    os.environ["COLUMNS"] = str(width)
    try:
        yield
    finally:
        os.environ.pop("COLUMNS")
        if before is not None:
            os.environ["COLUMNS"] = before


def write() -> None:
    for name in PROGRAMS:
        (DIRECTORY / f"{name}.1").write_text(page(name), encoding="utf-8")
