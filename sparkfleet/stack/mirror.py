"""Downloads the wheels of a lock into the controller's cache: each once, several at a time, resumed, by hash.

Where a wheel lies is asked of uv, so the site's own index, login and proxy hold; a wheel of another index has its
address in the lock. uv itself has no command that downloads wheels.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from http.client import HTTPException
from pathlib import Path

from sparkfleet.exit_codes import CommandFailed
from sparkfleet.stack.lock import Lock, Wheel
from sparkfleet.stack.profile import Profile
from sparkfleet.stack.resolve import filename, platform_of, pylock, wheels_of
from sparkfleet.temporary import temporary_directory

AT_ONCE = 6
TRIES = 4
"""For one wheel; each goes on where the last one ended."""
SILENCE = 60
"""Seconds without a byte after which a connection is given up."""
PIECE = 2**20

Progress = Callable[[int], None]
"""Told of bytes that are there now."""


class Stopped(Exception):
    """Ends a download because another one has failed, or the person has had enough; what is there stays."""


def missing(lock: Lock, cache: Path) -> list[Wheel]:
    """The wheels that are not in the cache with their right content; wrong ones are removed from it."""
    with ThreadPoolExecutor(AT_ONCE) as pool:
        there = list(pool.map(lambda wheel: is_there(wheel, cache), lock.wheels))
    return [wheel for wheel, found in zip(lock.wheels, there, strict=True) if not found]


def path_of(wheel: Wheel, cache: Path) -> Path:
    return cache / wheel.sha256 / wheel.filename


def is_there(wheel: Wheel, cache: Path) -> bool:
    path = path_of(wheel, cache)
    if not path.is_file():
        return False
    if path.stat().st_size == wheel.size and sha256(path) == wheel.sha256:
        return True
    path.unlink()
    return False


def sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def addresses(wheels: Iterable[Wheel], profile: Profile, lock: Lock) -> dict[str, list[str]]:
    """SHA-256 → where that wheel lies, the likeliest first.

    Raises:
        CommandFailed: the index does not know a wheel, or has another file under its name.
    """
    found = {wheel.sha256: [wheel.url] for wheel in wheels if wheel.url}
    for wheel in wheels:
        if wheel.url and wheel.name in profile.fallback:
            found[wheel.sha256].append(profile.fallback[wheel.name])
    asked = [wheel for wheel in wheels if not wheel.url]
    if asked:
        known = of_the_index(asked, profile, lock)
        for wheel in asked:
            if wheel.sha256 not in known:
                raise CommandFailed(
                    f"{wheel.requirement}: the index has no {wheel.filename} with the SHA-256 of the lock: it was "
                    "replaced or withdrawn, or the index is another; lock anew, or put the wheel into the cache"
                )
            found[wheel.sha256] = [known[wheel.sha256]]
    return found


def of_the_index(wheels: Iterable[Wheel], profile: Profile, lock: Lock) -> Mapping[str, str]:
    """SHA-256 → address, of all files of these releases that the index has for the platform."""
    with temporary_directory() as folder:
        source = Path(folder) / "requirements.txt"
        source.write_text("".join(f"{wheel.requirement}\n" for wheel in wheels), encoding="utf-8")
        answer = pylock(source, platform_of(profile, lock.machine), lock.python, ["--no-deps"])
    return {
        wheel["hashes"]["sha256"]: wheel.get("url") or Path(wheel["path"]).absolute().as_uri()
        for package in answer["packages"]
        for wheel in wheels_of(package)
        if "sha256" in wheel.get("hashes", {}) and filename(wheel)
    }


def fetch(lock: Lock, profile: Profile, cache: Path, progress: Progress) -> list[Wheel]:
    """Brings all wheels into the cache; the ones that were downloaded.

    Raises:
        CommandFailed: one line for the first wheel that could not be had; what is there stays, and is resumed.
    """
    wheels = missing(lock, cache)
    progress(lock.size - sum(wheel.size for wheel in wheels))
    if not wheels:
        return []
    where = addresses(wheels, profile, lock)
    # The largest first: the last one to end is then a small one.
    ordered = sorted(wheels, key=lambda wheel: -wheel.size)
    stop = threading.Event()

    def counted(count: int) -> None:
        if stop.is_set():
            raise Stopped
        progress(count)

    with ThreadPoolExecutor(AT_ONCE) as pool:
        waiting = [pool.submit(download, wheel, where[wheel.sha256], cache, counted) for wheel in ordered]
        try:
            for one in as_completed(waiting):
                one.result()
        except BaseException as error:
            stop.set()
            pool.shutdown(wait=False, cancel_futures=True)
            if isinstance(error, OSError):
                raise CommandFailed(f"{error.filename or cache}: {told(error)}") from error
            raise
    return wheels


def download(wheel: Wheel, urls: Iterable[str], cache: Path, progress: Progress) -> Path:
    """Downloads one wheel beside its place, checks it, and puts it there in one step.

    Raises:
        CommandFailed: no address has it, or what came has another hash, and is thrown away.
    """
    target = path_of(wheel, cache)
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f".{wheel.filename}.part")
    problem = "no address"
    with part.open("ab") as stream:
        # A second `fetch` waits here, and finds the wheel.
        fcntl.flock(stream, fcntl.LOCK_EX)
        if is_there(wheel, cache):
            return target
        progress(stream.tell())
        for url in urls:
            for _ in range(TRIES):
                before = stream.tell()
                try:
                    receive(url, stream.fileno(), wheel.size, progress)
                except (OSError, HTTPException) as error:
                    problem = f"{url}: {told(error)}"
                stream.seek(0, os.SEEK_END)
                # Nothing more came: another try at the same address would not help.
                if stream.tell() >= wheel.size or stream.tell() <= before:
                    break
            if stream.tell() >= wheel.size:
                break
        os.fsync(stream.fileno())
        size = stream.tell()
        if size < wheel.size:
            raise CommandFailed(f"{wheel.filename}: {size} of {wheel.size} bytes, {problem}; the same command goes on")
        found = sha256(part)
        if found != wheel.sha256:
            part.unlink()
            raise CommandFailed(f"{wheel.filename}: its SHA-256 is {found}, the lock has {wheel.sha256}: thrown away")
        part.replace(target)
    return target


def receive(url: str, descriptor: int, size: int, progress: Progress) -> None:
    """Appends to a file what is missing of `size` bytes. Raises OSError or HTTPException."""
    start = os.lseek(descriptor, 0, os.SEEK_END)
    request = urllib.request.Request(url, headers={"Range": f"bytes={start}-"} if start else {})
    with urllib.request.urlopen(request, timeout=SILENCE) as answer:
        if start and answer.status != 206:
            # A server without ranges sends all of it once more.
            os.ftruncate(descriptor, 0)
            progress(-start)
            start = 0
        while start < size and (piece := answer.read(min(PIECE, size - start))):
            write_all(descriptor, piece)
            start += len(piece)
            progress(len(piece))


def write_all(descriptor: int, piece: bytes) -> None:
    view = memoryview(piece)
    while view:
        view = view[os.write(descriptor, view) :]


def told(error: BaseException) -> str:
    """An error of the network in a few words."""
    if isinstance(error, urllib.error.HTTPError):
        return f"HTTP {error.code} {error.reason}"
    if isinstance(error, urllib.error.URLError):
        return told(error.reason) if isinstance(error.reason, BaseException) else error.reason
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error) or type(error).__name__
