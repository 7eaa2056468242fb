"""Every file of a stack is hashed by several processes, and none is left out."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

import pytest

from sparkhost import stack_verify
from sparkhost.stack_verify import FEW, hashes, walk

HOST = Path(__file__).resolve().parents[2] / "files" / "host"
COUNT = FEW + 7


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """More files than one process hashes, with a link."""
    for number in range(COUNT):
        path = tmp_path / str(number % 7) / f"{number}.py"
        path.parent.mkdir(exist_ok=True)
        path.write_text(str(number) * 1000)
    (tmp_path / "link").symlink_to("0/0.py")
    return tmp_path


def test_each_file_has_its_own_hash_and_the_order_stays(tree: Path) -> None:
    paths = sorted(walk(tree))
    found = hashes(tree, paths)
    assert list(found) == paths
    assert found.pop("link") == "-> 0/0.py"
    assert found == {path: hashlib.sha256((tree / path).read_bytes()).hexdigest() for path in paths if path != "link"}


def test_a_file_that_has_gone_is_named(tree: Path) -> None:
    paths = sorted(walk(tree))
    (tree / "3" / "3.py").unlink()
    with pytest.raises(FileNotFoundError, match=r"3/3\.py"):
        hashes(tree, paths)


def test_it_works_where_the_modules_lie_on_no_disk(tree: Path) -> None:
    """As on a host, to which they come by SSH: nothing can be imported anew there."""
    source = Path(stack_verify.__file__).read_text()
    script = f"""
import sys, types
sys.path.insert(0, {str(HOST)!r})
import sparkhost.files, sparkhost.stack_rules
sys.path.remove({str(HOST)!r})
import sparkhost
module = types.ModuleType("sparkhost.stack_verify")
sys.modules["sparkhost.stack_verify"] = module
exec(compile({source!r}, "over SSH", "exec"), module.__dict__)
sparkhost.__path__ = []
from pathlib import Path
root = Path({str(tree)!r})
print(len(module.hashes(root, list(module.walk(root)))))
"""
    done = subprocess.run([sys.executable, "-I", "-S", "-c", script], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == (f"{COUNT + 1}\n", "")
