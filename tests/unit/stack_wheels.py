"""Small real wheels and ELF files, made here, and an index that serves them as PyPI does."""

from __future__ import annotations

import base64
import hashlib
import struct
import threading
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import quote, unquote

from sparkfleet.stack.lock import Lock, Wheel

CUDA_13 = "libcudart.so.13"
CUDA_12 = "libcudart.so.12"


def elf(needed: Sequence[str]) -> bytes:
    """A 64-bit little-endian library with nothing in it but what it wants."""
    strings = b"\0"
    entries = []
    for name in needed:
        entries.append((1, len(strings)))
        strings += name.encode() + b"\0"
    header, programs, dynamic = 64, 2 * 56, 16 * (len(entries) + 3)
    start = header + programs
    table = start + dynamic
    size = table + len(strings)
    entries += [(5, table), (10, len(strings)), (0, 0)]
    ident = b"\x7fELF\x02\x01\x01" + bytes(9)
    return b"".join(
        [
            struct.pack("<16sHHIQQQIHHHHHH", ident, 3, 183, 1, 0, header, 0, 0, 64, 56, 2, 64, 0, 0),
            struct.pack("<IIQQQQQQ", 1, 4, 0, 0, 0, size, size, 4096),
            struct.pack("<IIQQQQQQ", 2, 4, start, start, start, dynamic, dynamic, 8),
            *(struct.pack("<qQ", *entry) for entry in entries),
            strings,
        ]
    )


def wheel(
    folder: Path, name: str, version: str = "1.0", files: Mapping[str, bytes] | None = None, tag: str = "py3-none-any"
) -> Path:
    """A wheel of these files with a right RECORD; one package with a version where none are given."""
    underscored = name.replace("-", "_")
    info = f"{underscored}-{version}.dist-info"
    content = {
        **(files if files is not None else {f"{underscored}/__init__.py": f"VERSION = {version!r}\n".encode()}),
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n".encode(),
        f"{info}/WHEEL": f"Wheel-Version: 1.0\nGenerator: x\nRoot-Is-Purelib: true\nTag: {tag}\n".encode(),
    }
    rows = []
    for path, data in content.items():
        value = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
        rows.append(f"{path},sha256={value},{len(data)}\n")
    target = folder / f"{underscored}-{version}-{tag}.whl"
    with zipfile.ZipFile(target, "w") as archive:
        for path, data in content.items():
            archive.writestr(path, data)
        archive.writestr(f"{info}/RECORD", "".join([*rows, f"{info}/RECORD,,\n"]))
    return target


def locked(path: Path, url: str = "") -> Wheel:
    """The line of a lock for a wheel."""
    name, version, *_ = path.name.split("-")
    data = path.read_bytes()
    return Wheel(name.replace("_", "-"), version, path.name, len(data), hashlib.sha256(data).hexdigest(), url)


def lock_of(paths: Sequence[Path], machine: str = "x86_64", profile: str = "lab") -> Lock:
    wheels = sorted((locked(path) for path in paths), key=lambda one: one.name)
    return Lock(profile, machine, "3.11", "2.36", tuple(wheels))


@dataclass
class Index:
    """A simple index (PEP 503) over a folder of wheels: a double of PyPI at its interface, over HTTP."""

    folder: Path
    url: str = ""
    ranges: bool = True
    cut_after: int | None = None
    """Bytes of a body after which the connection is closed, once."""
    seen: list[tuple[str, str]] = field(default_factory=list)
    """Path and Range of every request for a file."""

    @property
    def simple(self) -> str:
        return f"{self.url}/simple"

    def address(self, path: Path) -> str:
        return f"{self.url}/files/{quote(path.name)}"


def link(index: Index, path: Path) -> str:
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return f'<a href="{index.address(path)}#sha256={digest}">{path.name}</a>\n'


@contextmanager
def serving(folder: Path) -> Iterator[Index]:
    """An index on a free port of this machine."""
    index = Index(folder)

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            pass

        def do_HEAD(self) -> None:
            self.do_GET()

        def do_GET(self) -> None:
            kind, _, rest = unquote(self.path).strip("/").partition("/")
            if kind == "simple":
                self.listed(rest)
            else:
                self.served(folder / rest)

        def listed(self, name: str) -> None:
            found = [path for path in folder.glob("*.whl") if path.name.split("-")[0].replace("_", "-") == name]
            links = "".join(link(index, path) for path in found)
            page = f"<!DOCTYPE html><html><body>{links}</body></html>"
            self.answer(200 if found else 404, page.encode(), "text/html")

        def served(self, path: Path) -> None:
            if not path.is_file():
                self.answer(404, b"", "text/plain")
                return
            wanted = self.headers.get("Range", "")
            if self.command == "GET":
                index.seen.append((path.name, wanted))
            data, status = path.read_bytes(), 200
            if wanted and index.ranges:
                first, _, last = wanted.removeprefix("bytes=").partition("-")
                status, whole = 206, len(data)
                end = int(last) + 1 if last else whole
                start = int(first) if first else whole - int(last)
                end = end if first else whole
                data = data[start:end]
                self.answer(status, data, "application/zip", f"bytes {start}-{end - 1}/{whole}")
                return
            self.answer(status, data, "application/zip")

        def answer(self, status: int, data: bytes, kind: str, content_range: str = "") -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(data)))
            if index.ranges:
                self.send_header("Accept-Ranges", "bytes")
            if content_range:
                self.send_header("Content-Range", content_range)
            self.end_headers()
            if self.command == "HEAD":
                return
            if index.cut_after is not None and kind == "application/zip":
                data, index.cut_after = data[: index.cut_after], None
                self.close_connection = True
            self.wfile.write(data)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    index.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield index
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
