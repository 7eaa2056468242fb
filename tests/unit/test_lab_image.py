"""What goes into a lab host's image, and what its name depends on."""

import io
import struct
import tarfile
import uuid
import zlib
from dataclasses import replace
from pathlib import Path

import pytest

from tests.lab import files, gpt, image, ubuntu
from tests.lab.errors import LabError
from tests.lab.profiles import Profile, number, profile


@pytest.fixture
def odd() -> Profile:
    return profile("spark1", arch="amd64")


@pytest.fixture
def even() -> Profile:
    return profile("spark2", arch="amd64")


def fields(text: str) -> list[list[str]]:
    """The entries of an fstab, as fstab(5) splits them."""
    return [line.split() for line in text.splitlines() if line.strip() and not line.strip().startswith("#")]


def test_hosts_alternate_between_the_two_kinds() -> None:
    assert [profile(f"spark{n}").suite for n in (1, 2, 3, 4)] == ["bookworm", "trixie"] * 2
    assert profile("spark1") == profile("spark3")


@pytest.mark.parametrize("name", ["spark0", "spark", "spark100", "web1", "spark1 ", "../spark1", ""])
def test_other_names_are_refused(name: str) -> None:
    with pytest.raises(LabError, match="spark1 to spark99"):
        number(name)


def test_memory_can_be_set_in_mib(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPARKFLEET_LAB_MEMORY", "2048")
    assert profile("spark1").memory_mib == 2048
    monkeypatch.setenv("SPARKFLEET_LAB_MEMORY", "2G")
    with pytest.raises(LabError, match="MiB"):
        profile("spark1")


def test_fstab_has_the_odd_lines(odd: Profile, even: Profile) -> None:
    for kind in (odd, even):
        text = files.fstab(kind)
        assert "/mnt/scratch\\040space" in text
        assert {"UUID=", "LABEL="} <= {entry[0].split("=")[0] + "=" for entry in fields(text) if "=" in entry[0]}
        assert any("\t" in line for line in text.splitlines())
        assert any(files.ABSENT_UUID in entry[0] and "nofail" in entry[3] for entry in fields(text))
        assert all(len(entry) == 6 for entry in fields(text))
    assert files.fstab(odd).endswith("\n")
    assert not files.fstab(even).endswith("\n")


def test_only_the_host_without_a_swap_partition_names_swap_in_fstab(odd: Profile, even: Profile) -> None:
    """Any swap line would stop systemd-gpt-auto-generator from looking for the partition."""
    assert [entry[0] for entry in fields(files.fstab(odd)) if entry[2] == "swap"] == ["/swap.img"]
    assert [entry for entry in fields(files.fstab(even)) if entry[2] == "swap"] == []
    assert [part.name for part in image.partitions(even)] == ["root", "scratch", "swap"]
    assert [part.name for part in image.partitions(odd)] == ["root", "scratch"]


def test_the_hash_depends_on_the_image_and_not_on_the_machine(odd: Profile) -> None:
    base = image.image_hash(odd)
    assert image.image_hash(replace(odd, memory_mib=4096, cpus=8)) == base
    changed = [
        replace(odd, suite="trixie"),
        replace(odd, arch="arm64"),
        replace(odd, zram=False),
        replace(odd, ssh_socket=True),
        replace(odd, sudo_password=True),
        replace(odd, swap_file=False),
        replace(odd, swap_partition=True),
    ]
    assert len({base, *map(image.image_hash, changed)}) == len(changed) + 1


def test_no_image_holds_a_secret_of_a_lab(odd: Profile) -> None:
    assert not [path for path in files.tree(odd) if "ssh_host" in path or "authorized_keys" in path or "shadow" in path]


def test_an_archive_is_the_same_bytes_with_all_parents() -> None:
    entries = {"/etc/a/b": (0o440, "x"), "etc/c": (0o644, "")}
    packed = image.archive(entries)
    assert packed == image.archive(dict(reversed(entries.items())))
    with tarfile.open(fileobj=io.BytesIO(packed)) as tar:
        assert tar.getnames() == ["./etc", "./etc/a", "./etc/a/b", "./etc/c"]
        assert {(member.uid, member.gid, member.mtime) for member in tar} == {(0, 0, 0)}
        assert tar.getmember("./etc/a/b").mode == 0o440


def test_the_partition_table_has_sound_checksums_and_both_copies(even: Profile, tmp_path: Path) -> None:
    layout = image.partitions(even)
    disk = tmp_path / "disk"
    disk.write_bytes(b"")
    gpt.write(disk, uuid.UUID(int=1), layout)
    size = gpt.disk_size(layout)
    assert disk.stat().st_size == size

    def read(at: int, length: int) -> bytes:
        with disk.open("rb") as handle:
            handle.seek(at)
            return handle.read(length)

    assert read(510, 2) == b"\x55\xaa"
    assert read(450, 1) == b"\xee"
    for at in (gpt.SECTOR, size - gpt.SECTOR):
        header = read(at, 92)
        assert header[:8] == b"EFI PART"
        (checksum,) = struct.unpack_from("<I", header, 16)
        assert zlib.crc32(header[:16] + b"\0" * 4 + header[20:]) == checksum
        own, array = struct.unpack_from("<Q", header, 24)[0], struct.unpack_from("<Q", header, 72)[0]
        assert own == at // gpt.SECTOR
        entries = read(array * gpt.SECTOR, 128 * 128)
        assert struct.unpack_from("<I", header, 88)[0] == zlib.crc32(entries)
        assert uuid.UUID(bytes_le=entries[2 * 128 : 2 * 128 + 16]) == gpt.TYPE_SWAP
        first, last = struct.unpack_from("<QQ", entries, 2 * 128 + 32)
        assert (last - first + 1) * gpt.SECTOR == image.SWAP_MIB * image.MIB


def test_foreign_mirrors_cannot_pass_off_other_archive_keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(ubuntu, "SYSTEM", Path("/nonexistent/usr/keyring.gpg"))
    package = tmp_path / "mirror" / ubuntu._PACKAGE
    package.parent.mkdir(parents=True)
    package.write_bytes(b"not a package")
    with pytest.raises(LabError, match="expected archive keys"):
        ubuntu.keyring((tmp_path / "mirror").as_uri())
    with pytest.raises(LabError, match="SPARKFLEET_LAB_MIRROR"):
        ubuntu.keyring(None)
