"""fstab entries are commented out and put back, and nothing else is touched."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparkhost.swap import fstab

ODD = (
    b"# /etc/fstab: static file system information.\n"
    b"\n"
    b"UUID=0a1b\t/\text4\terrors=remount-ro\t0 1\n"
    b"  \t/swap.img\tnone\tswap\tsw\t0\t0  \n"
    b"LABEL=data /srv/my\\040data ext4 nofail 0 2 # swap\n"
    b"#/old.img none swap sw 0 0\n"
    b"/dev/disk/by-uuid/x swap swap defaults\r\n"
    b"/swap swap ext4 defaults 0 0\n"
    b"tmpfs /swap tmpfs size=1G 0 0\n"
    b"\xff\xfe none swap sw"  # not UTF-8, and no newline at the end
)


@pytest.mark.parametrize(
    ("line", "is_swap"),
    [
        (b"/swap.img none swap sw 0 0", True),
        (b"\t/swap.img\tnone\tswap\tsw", True),
        (b"/swap.img none swap", True),
        (b"UUID=1 none swap sw,pri=5,x-systemd.requires=/dev/x 0 0\r", True),
        (b"zram0 swap swap", True),
        (b"/swap.img none", False),
        (b"/dev/sda1 /swap ext4 defaults 0 0", False),
        (b"swap swap ext4 swap 0 0", False),
        (b"# /swap.img none swap sw 0 0", False),
        (b"   #/swap.img none swap sw 0 0", False),
        (b"/swap.img none swapfs sw", False),
        (b"", False),
        (b" \t ", False),
    ],
)
def test_swap_entries_are_told_from_others(line: bytes, is_swap: bool) -> None:
    assert fstab.is_swap_entry(line) is is_swap


def test_only_swap_entries_change() -> None:
    commented, numbers = fstab.comment_out(ODD)
    assert numbers == [4, 7, 10]
    old, new = ODD.split(b"\n"), commented.split(b"\n")
    for number, (before, after) in enumerate(zip(old, new, strict=True), 1):
        assert after == (fstab.MARKER + before if number in numbers else before)


def test_a_second_time_changes_nothing() -> None:
    commented, _ = fstab.comment_out(ODD)
    assert fstab.comment_out(commented) == (commented, [])


@given(
    st.lists(
        st.binary(max_size=40) | st.sampled_from([b"/s none swap sw", b"\t/s\tx\tswap", b"#x none swap", b""]),
        max_size=12,
    ).map(b"\n".join)
)
def test_put_back_undoes_it_byte_for_byte(content: bytes) -> None:
    commented, _ = fstab.comment_out(content)
    assert not any(fstab.is_swap_entry(line) for line in commented.split(b"\n"))
    if fstab.MARKER not in content:
        assert fstab.put_back(commented)[0] == content
