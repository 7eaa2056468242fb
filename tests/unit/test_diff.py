"""What --diff shows of files that others write, too: no secret of theirs."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparkhost.base.diff import masked, text_diff

SECRETS = {
    "fstab": "//nas/x /mnt cifs username=ann,password=S3CRET,uid=5 0 0",
    "fstab, short": "//nas/x /mnt cifs user=ann,pass=S3CRET 0 0",
    "fstab, a file": "//nas/x /mnt cifs credentials=/root/S3CRET,uid=5 0 0",
    "JSON": '  "registry-password": "S3CRET \\" S3CRET",',
    "JSON, a number": '  "auth_token": 777S3CRET,',
    "proxy": '  "http-proxy": "http://ann:S3CRET@proxy:3128"',
    "proxy, odd": "HTTPS_PROXY=http://ann:S3@CRET:S3CRET@proxy:3128",
    "environment": "HF_TOKEN=S3CRET with S3CRET",
    "shell": 'export AWS_SECRET_ACCESS_KEY="S3CRET"',
    "key": "OPENAI_API_KEY=S3CRET",
}


@pytest.mark.parametrize("line", SECRETS.values(), ids=SECRETS)
def test_no_secret_is_shown_next_to_our_lines_or_in_them(line: str) -> None:
    shown = text_diff("/etc/x", f"{line}\nold\n".encode(), f"{line}\nnew\n".encode())
    assert "+new" in shown
    assert "S3CRET" not in shown
    assert "***" in shown
    assert "S3CRET" not in text_diff("/etc/x", f"{line}\n".encode(), b"")


@pytest.mark.parametrize(
    "line",
    [
        "PasswordAuthentication no",
        "OOMScoreAdjust=-1000",
        "LD_LIBRARY_PATH=/usr/local/cuda/lib64",
        "/dev/sda2 none swap sw,pri=5 0 0",
        "# the password is kept elsewhere",
        '"data-root": "/srv/docker"',
        "index = https://wheels.example.com/simple",
    ],
)
def test_what_is_no_secret_is_shown_as_it_is(line: str) -> None:
    assert masked(f"+{line}\n") == f"+{line}\n"


@given(st.text())
def test_lines_stay_lines(text: str) -> None:
    assert masked(text).count("\n") == text.count("\n")


@pytest.mark.parametrize("text", ["a" * 65536, "password" * 8192, "x://" * 16384, "=:" * 32768, '"\\' * 32768])
def test_no_text_takes_long(text: str) -> None:
    started = time.process_time()
    masked(text)
    assert time.process_time() - started < 2
