"""Build a host's image with mmdebstrap and mkfs.ext4, once, and keep it by the hash of its inputs.

An image is a directory: `base.qcow2` (GPT disk), `vmlinuz`, `initrd`. It holds no secret of any lab.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
import time
import uuid
from dataclasses import asdict, dataclass
from pathlib import Path

from tests.lab import cache, files, foreign, gpt, tools, ubuntu
from tests.lab.errors import LabError
from tests.lab.locks import locked
from tests.lab.profiles import Profile, native_arch

FORMAT = 1
"""Raise it where the way an image is put together changes."""

MIB = 1024 * 1024
ROOT_MIB = 3072
SCRATCH_MIB = 32
SWAP_MIB = 192

_NAMESPACE = uuid.UUID("c0ffee00-5ba2-4f1e-9e1d-1ab000000000")
_MODULES = "virtio_pci virtio_blk virtio_net virtio_console ext4"


@dataclass(frozen=True)
class Image:
    """A finished image on this machine."""

    directory: Path

    @property
    def disk(self) -> Path:
        return self.directory / "base.qcow2"

    @property
    def kernel(self) -> Path:
        return self.directory / "vmlinuz"

    @property
    def initrd(self) -> Path:
        return self.directory / "initrd"


def image_hash(profile: Profile) -> str:
    """Hash of everything the image is made from: profile, packages, files, sizes (hex, 16 digits)."""
    inputs = {
        "format": FORMAT,
        "profile": {k: v for k, v in asdict(profile).items() if k not in {"memory_mib", "cpus", "hardware_timer"}},
        "packages": files.packages(profile),
        "tree": files.tree(profile),
        "modules": _MODULES,
        "sizes": [ROOT_MIB, SCRATCH_MIB, SWAP_MIB],
    }
    if hooks(profile):
        inputs["hooks"] = hooks(profile)
    return hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()[:16]


def ensure(profile: Profile) -> Image:
    """The image for `profile`, built if this machine does not have it yet.

    Raises LabError where tools are missing, the build fails or the disk is full; a failed or killed build
    leaves nothing that a later call would take for an image.
    """
    key = image_hash(profile)
    images = cache.directory() / "images"
    image = Image(images / key)
    if image.directory.is_dir():
        return image
    tools.ensure(profile.arch, native_arch())
    if profile.arch != native_arch():
        foreign.ensure(profile.arch)
    with locked(images / f"{key}.lock"):
        if image.directory.is_dir():
            return image
        for left in images.glob(f".build-{key}-*"):
            _remove(left)
        work = images / f".build-{key}-{os.getpid()}"
        work.mkdir()
        began = time.monotonic()
        print(f"lab: building the {profile.suite} {profile.arch} image (once)", file=sys.stderr)
        try:
            _Builder(profile, work, images / f"{key}.log").build()
            work.rename(image.directory)
        except OSError as error:
            raise LabError(f"cannot build the image in {images}: {error.strerror or error}") from error
        finally:
            if work.exists():
                _remove(work)
        print(f"lab: image built in {time.monotonic() - began:.0f} s", file=sys.stderr)
    return image


def _remove(work: Path) -> None:
    """Delete a build directory, whose files belong to root where sudo made them."""
    subprocess.run([*tools.as_root(), "rm", "-rf", "--one-file-system", "--", str(work)], check=True)


def archive(entries: dict[str, tuple[int, str]]) -> bytes:
    """A tar archive of root's files, with their parent directories, the same bytes for the same entries."""
    buffer = io.BytesIO()
    made: set[str] = set()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for path, (mode, text) in sorted(entries.items()):
            parts = path.strip("/").split("/")
            for depth in range(1, len(parts)):
                parent = "/".join(parts[:depth])
                if parent not in made:
                    made.add(parent)
                    info = tarfile.TarInfo(f"./{parent}")
                    info.type, info.mode = tarfile.DIRTYPE, 0o755
                    tar.addfile(info)
            info = tarfile.TarInfo("./" + "/".join(parts))
            data = text.encode()
            info.mode, info.size = mode, len(data)
            tar.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


class _Builder:
    def __init__(self, profile: Profile, work: Path, log: Path) -> None:
        self.profile = profile
        self.work = work
        self.log = log
        self.root = work / "root"

    def build(self) -> None:
        self.log.write_bytes(b"")
        (self.work / "files.tar").write_bytes(archive(files.tree(self.profile)))
        self._run(*tools.as_root(), *mmdebstrap(self.profile, self.root, self.work / "files.tar"))
        disk = self.work / "disk.raw"
        layout = partitions(self.profile)
        with disk.open("wb") as handle:
            handle.truncate(gpt.disk_size(layout))
        boot = self.root / "boot"
        self._as_root(f"cp -L {_glob(boot, 'vmlinuz-*')} {self.work}/vmlinuz")
        self._as_root(f"cp -L {_glob(boot, 'initrd.img-*')} {self.work}/initrd")
        self._as_root(f"rm -f {boot}/initrd.img* {self.root}/initrd.img* {self.root}/vmlinuz*")
        root = layout[0]
        self._run(
            *tools.as_root(),
            _tool("mkfs.ext4"), "-q", "-F", "-L", "sparkroot", "-U", files.ROOT_UUID,
            "-E", f"offset={root.start},root_owner=0:0", "-d", str(self.root),
            str(disk), f"{root.size // 1024}k",
        )  # fmt: skip
        self._run(*tools.as_root(), "chown", "-R", f"{os.getuid()}:{os.getgid()}", *map(str, self.work.glob("*.*")))
        for name in ("vmlinuz", "initrd"):
            self._run(*tools.as_root(), "chown", f"{os.getuid()}:{os.getgid()}", str(self.work / name))
        scratch = layout[1]
        self._run(
            _tool("mkfs.ext4"), "-q", "-F", "-L", files.SCRATCH_LABEL,
            "-E", f"offset={scratch.start}", str(disk), f"{scratch.size // 1024}k",
        )  # fmt: skip
        if self.profile.swap_partition:
            self._swap(disk, layout[2])
        gpt.write(disk, _guid(self.profile, "disk"), layout)
        self._run("qemu-img", "convert", "-f", "raw", "-O", "qcow2", str(disk), str(self.work / "base.qcow2"))
        disk.unlink()
        (self.work / "files.tar").unlink()
        (self.work / "profile.json").write_text(json.dumps(asdict(self.profile), indent=1) + "\n")
        _remove(self.root)

    def _swap(self, disk: Path, part: gpt.Partition) -> None:
        area = self.work / "swap.raw"
        with area.open("wb") as handle:
            handle.truncate(part.size)
        area.chmod(0o600)
        self._run(_tool("mkswap"), "-q", str(area))
        with disk.open("r+b") as handle:
            handle.seek(part.start)
            handle.write(area.read_bytes()[:MIB])  # the signature; the rest is empty
        area.unlink()

    def _as_root(self, script: str) -> None:
        self._run(*tools.as_root(), "sh", "-c", script)

    def _run(self, *command: str) -> None:
        """Run a build step, its output in the build's log. Raises LabError that says why it failed."""
        with self.log.open("ab") as log:
            log.write((" ".join(command) + "\n").encode())
            log.flush()
            done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, check=False)
        if done.returncode:
            raise LabError(f"{self._why()} (image build, {command[0]}; all of it in {self.log})")

    def _why(self) -> str:
        lines = [line.strip() for line in self.log.read_text(errors="replace").splitlines() if line.strip()]
        if any("No space left on device" in line for line in lines[-200:]):
            free = shutil.disk_usage(self.work).free // MIB
            return f"disk full: {free} MiB free in {self.work.parent}, an image needs about 4000"
        errors = [line for line in lines if line.startswith("E:") or "error" in line.lower()]
        return (errors or lines or ["no output"])[-1]


def partitions(profile: Profile) -> list[gpt.Partition]:
    """The disk's partitions: root, a scratch file system, and swap where the profile has it."""
    wanted = [
        ("root", gpt.TYPE_ROOT[profile.arch], ROOT_MIB),
        ("scratch", gpt.TYPE_LINUX, SCRATCH_MIB),
    ]
    if profile.swap_partition:
        wanted.append(("swap", gpt.TYPE_SWAP, SWAP_MIB))
    layout: list[gpt.Partition] = []
    start = gpt.ALIGN
    for name, kind, mib in wanted:
        layout.append(gpt.Partition(name, kind, _guid(profile, name), start, mib * MIB))
        start += mib * MIB
    return layout


def hooks(profile: Profile) -> list[str]:
    """More steps for mmdebstrap. Ubuntu ships systemd-gpt-auto-generator masked in /etc: a host that is to have an
    auto-discovered swap partition is one whose administrator took that mask away."""
    if not (profile.ubuntu and profile.swap_partition):
        return []
    return ['--customize-hook=rm -f "$1/etc/systemd/system-generators/systemd-gpt-auto-generator"']


def mmdebstrap(profile: Profile, root: Path, tree: Path) -> list[str]:
    """The command that makes the root file system in the directory `root`, with the files of `tree` (tar)."""
    mirror = tools.mirror(profile.arch, native_arch(), ubuntu=profile.ubuntu)
    ssh_unit = "ssh.socket" if profile.ssh_socket else "ssh.service"
    initramfs = (
        'mkdir -p "$1/etc/initramfs-tools/conf.d"'
        ' && printf "MODULES=list\\nCOMPRESS=gzip\\nRUNSIZE=5%%\\n" >"$1/etc/initramfs-tools/conf.d/lab.conf"'
        f' && printf "%s\\n" {_MODULES} >"$1/etc/initramfs-tools/modules"'
    )
    command = [
        "mmdebstrap",
        "--mode=root",
        "--format=directory",
        "--variant=apt",
        f"--architectures={profile.arch}",
        f"--include={','.join(files.packages(profile))}",
        "--aptopt=Apt::Install-Recommends false",
        "--dpkgopt=path-exclude=/usr/share/man/*",
        "--dpkgopt=path-exclude=/usr/share/locale/*",
        "--dpkgopt=path-exclude=/usr/share/doc/*",
        f"--essential-hook={initramfs}",
        f"--customize-hook=tar-in {tree} /",
        f'--customize-hook=chroot "$1" sh /usr/local/lib/sparkfleet-lab/setup.sh {ssh_unit}',
        *hooks(profile),
    ]
    if profile.ubuntu:
        command += ["--components=main,universe", f"--keyring={ubuntu.keyring(mirror)}"]
    command += [profile.suite, str(root)]
    if mirror is not None:
        command.append(mirror)
    return command


def _guid(profile: Profile, what: str) -> uuid.UUID:
    return uuid.uuid5(_NAMESPACE, f"{profile.suite} {profile.arch} {what}")


def _glob(directory: Path, pattern: str) -> str:
    return f"$(ls -1 {directory}/{pattern} | tail -n 1)"


def _tool(program: str) -> str:
    return tools.find(program) or program
