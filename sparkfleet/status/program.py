"""The reader that goes to a host, and the command that starts it there; nothing of it stays."""

from __future__ import annotations

import base64
import json
import zlib
from functools import cache

from sparkfleet.host_sources import HOST, by_name

# As `sparkfleet.host_sources` serves a deploy's: `import sparkhost` finds what came on standard input.
# Not of importlib.abc's classes: importing that takes as long as all of the reader's own modules.
LOADER = """
import sys
from importlib.machinery import ModuleSpec
class Sources:
    def find_spec(self, name, path=None, target=None):
        package = any(other.startswith(name + ".") for other in SOURCES)
        return ModuleSpec(name, self, is_package=package) if name in SOURCES else None
    def create_module(self, spec):
        return None
    def exec_module(self, module):
        exec(compile(SOURCES[module.__name__], module.__name__, "exec"), module.__dict__)
sys.meta_path.insert(0, Sources())
from sparkhost.status.main import main
sys.exit(main(count=COUNT))
"""
# Unbuffered: the rest of standard input is the controller's sign of life, and must not be swallowed here.
START = (
    "import os,zlib,base64;s=b''\n"
    "while not s.endswith(b'\\n'): s+=os.read(0,1<<16) or os._exit(1)\n"
    "exec(zlib.decompress(base64.b64decode(s)))"
)
PYTHON = "/usr/bin/python3 -I -S -B -c"
"""-I: nothing of the user's or the directory's is imported; -S: no site-packages."""


@cache
def source(count: int = 0) -> bytes:
    """The program as a line for standard input. `count`: lines after which it ends; 0 for no end."""
    names = by_name(sorted((HOST / "sparkhost" / "status").glob("*.py")))
    # The host's own terminal is no business of a stream.
    names.pop("sparkhost.status.screen", None)
    text = f"import json\nSOURCES = json.loads({json.dumps(names)!r})\nCOUNT = {count}\n{LOADER}"
    return base64.b64encode(zlib.compress(text.encode(), 9)) + b"\n"


def command() -> str:
    """The command on the host: as root where sudo asks for no password, else as the login user.

    What only root may read are the watchdog's post-mortems.
    """
    start = base64.b64encode(START.encode()).decode()
    # No quote, backslash or exclamation mark inside: the quotes mean the same to sh, csh and fish.
    python = f'{PYTHON} "import sys,base64;exec(base64.b64decode(sys.argv[1]))" {start}'
    root = 'S=; if [ "$(id -u)" = 0 ]; then :; elif sudo -n true 2>/dev/null; then S="sudo -n"; fi'
    return f"sh -c '{root}; exec $S {python}'"
