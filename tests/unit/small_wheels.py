"""Real small wheels in a real venv: made here, installed by uv, as a user would get the large ones."""

from __future__ import annotations

import base64
import hashlib
import subprocess
import sys
import zipfile
from collections.abc import Sequence
from pathlib import Path

UV = Path(sys.executable).with_name("uv")


def wheel(directory: Path, name: str, version: str, files: dict[str, bytes], requires: Sequence[str] = ()) -> Path:
    """A wheel of a pure distribution (packaging.python.org, binary distribution format)."""
    stem = f"{name.replace('-', '_')}-{version}"
    info = f"{stem}.dist-info"
    content = dict(files)
    lines = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}"]
    lines += [f"Requires-Dist: {requirement}" for requirement in requires]
    content[f"{info}/METADATA"] = "\n".join([*lines, ""]).encode()
    content[f"{info}/WHEEL"] = b"Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    rows = [f"{path},sha256={hash_of(data)},{len(data)}" for path, data in content.items()]
    content[f"{info}/RECORD"] = "\n".join([*rows, f"{info}/RECORD,,", ""]).encode()
    path = directory / f"{stem}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for member, data in content.items():
            archive.writestr(member, data)
    return path


def hash_of(data: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()


def new_venv(path: Path) -> Path:
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(path)], check=True)
    return path


def install(
    venv: Path, directory: Path, name: str, version: str, files: dict[str, bytes], requires: Sequence[str] = ()
) -> None:
    """Puts a distribution into a venv, with uv."""
    made = wheel(directory, name, version, files, requires)
    python = str(venv / "bin" / "python")
    command = [str(UV), "pip", "install", "-q", "--offline", "--no-index", "--no-deps", "--python", python, str(made)]
    subprocess.run(command, check=True, capture_output=True, timeout=60)


def library(directory: Path, soname: str, needs: str = "") -> bytes:
    """A shared library by the C compiler: with that SONAME, and with DT_NEEDED of another one."""
    source = directory / "empty.c"
    source.write_text("int nothing;\n")
    target = directory / soname
    command = ["cc", "-shared", "-fPIC", "-o", str(target), str(source), f"-Wl,-soname,{soname}"]
    if needs:
        other = directory / needs
        subprocess.run(
            ["cc", "-shared", "-fPIC", "-o", str(other), str(source), f"-Wl,-soname,{needs}"], check=True, timeout=60
        )
        command += ["-Wl,--no-as-needed", str(other)]
    subprocess.run(command, check=True, timeout=60)
    return target.read_bytes()
