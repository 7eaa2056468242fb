"""The stub runs commands as if their caller had: real processes, sockets and limits."""

from __future__ import annotations

import errno
import marshal
import os
import resource
import signal
import socket
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sparkhost.base.cgroups import cgroup_of
from sparkhost.launcher import channel as messages
from sparkhost.launcher import inherit, stay
from sparkhost.launcher.attach import attend
from sparkhost.launcher.stub import lowered, peak
from tests.unit.launcher_jobs import job, pair, python, stub

INFINITE = resource.RLIM_INFINITY
limits = st.just(INFINITE) | st.integers(0, 2**62)


def test_output_error_and_exit_code_are_the_commands_own() -> None:
    code, out, err, ending, status = job("sh", "-c", "echo out; echo err >&2; exit 37")
    assert (code, out, err, status) == (37, b"out\n", b"err\n", 37)
    assert ending.started


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL, signal.SIGSEGV, signal.SIGINT])
def test_a_signal_is_128_and_its_number(number: signal.Signals) -> None:
    code, *_, status = job("sh", "-c", f"ulimit -c 0; kill -{number.value} $$")
    assert code == status == 128 + number


def test_arguments_and_variables_survive_as_bytes(tmp_path: Path) -> None:
    raw = bytes(range(1, 256)).replace(b"=", b"")
    words = [b"-x", b"--", b"a\nb", b"%n $HOME `id`", b"", b"\xff\xfe", "ä".encode(), raw, b"x" * 100_000]
    script = """import os, sys
sys.stdout.buffer.write(b"\\0".join(map(os.fsencode, sys.argv[1:])) + b"\\0\\0" + os.environb[b"V"])"""
    variables = [("PATH", "/usr/bin:/bin"), ("V", messages.text(raw))]
    code, out, err, *_ = job(*python(script), *(os.fsdecode(word) for word in words), environment=variables)
    assert (code, err) == (0, b"")
    assert out == b"\0".join(words) + b"\0\0" + raw


def test_the_jobs_environment_is_the_callers_and_not_systemds() -> None:
    _, out, *_ = job("env", "-0", environment=[("A", "1"), ("LD_PRELOAD", ""), ("PATH", "/usr/bin:/bin")])
    names = {entry.partition(b"=")[0].decode() for entry in out.split(b"\0") if entry}
    assert names == {"A", "LD_PRELOAD", "PATH", "INVOCATION_ID"}


def test_a_planted_module_or_library_is_not_the_stubs(tmp_path: Path) -> None:
    (tmp_path / "json.py").write_text("print('planted')")
    variables = [("PYTHONPATH", str(tmp_path)), ("PYTHONSTARTUP", str(tmp_path / "json.py")), ("PATH", "/usr/bin:/bin")]
    code, out, err, *_ = job("true", environment=variables)
    assert (code, out, err) == (0, b"", b"")


def test_umask_directory_and_limits_are_the_callers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    monkeypatch.chdir(tmp_path / "link")
    monkeypatch.setenv("PWD", str(tmp_path / "link"))
    before, files = os.umask(0o027), resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (333, files[1]))
    try:
        variables = [("PWD", str(tmp_path / "link")), ("PATH", "/usr/bin:/bin")]
        _, out, *_ = job("sh", "-c", "umask; pwd; ulimit -Sn; ulimit -Hn", environment=variables)
    finally:
        os.umask(before)
        resource.setrlimit(resource.RLIMIT_NOFILE, files)
    hard = "unlimited" if files[1] == INFINITE else str(files[1])
    assert out.decode().split() == ["0027", str(tmp_path / "link"), "333", hard]


@settings(deadline=None)  # other tests keep the machine busy
@given(limits, limits, limits, limits)
def test_limits_are_only_ever_lowered(soft: int, hard: int, our_soft: int, our_hard: int) -> None:
    def order(value: int) -> float:
        return float("inf") if value == INFINITE else value

    new_soft, new_hard = lowered((soft, hard), (our_soft, our_hard))
    assert order(new_soft) <= order(new_hard) <= order(our_hard)
    assert order(new_hard) <= order(hard)
    assert order(new_soft) <= order(soft)


def test_a_command_that_is_not_there_is_127_and_one_that_cannot_run_126(tmp_path: Path) -> None:
    *_, ending, status = job("no-such-command")
    assert (ending.code, status, ending.started) == (127, 127, False)
    assert ending.failed == "cannot run no-such-command: No such file or directory"
    (tmp_path / "script").write_text("")
    *_, ending, status = job(str(tmp_path / "script"))
    assert (ending.code, status) == (126, 126)
    assert "Permission denied" in ending.failed


def test_a_directory_that_is_another_one_inside_the_job_is_refused() -> None:
    ours, theirs = pair()
    process = stub(theirs)
    inherited = inherit.gather(["true"], []) | {"directory": "/proc", "logical": None}
    with ours:
        stay.hand_over(ours, inherited, [0, 1, 2], detached=False)
        ending = attend(ours)
    assert ending.failed == f"cannot enter the working directory: /proc: {os.strerror(errno.ENOENT)}" or (
        ending.failed == "cannot enter the working directory: /proc: not the same directory inside the job"
    )
    assert process.wait(timeout=30) == ending.code


def test_no_descriptor_of_the_stubs_leaks_into_the_job() -> None:
    _, out, *_ = job("ls", "/proc/self/fd")
    assert out.split() == [b"0", b"1", b"2", b"3"]  # 3 is ls's own


def test_the_job_is_a_session_of_its_own_and_signals_reach_all_of_it() -> None:
    ours, theirs = pair()
    reading, writing = os.pipe()
    process = stub(theirs)
    script = "trap 'echo got it; exit 5' INT; echo ready; while :; do sleep 0.05; done"
    with ours:
        stay.hand_over(ours, inherit.gather(["sh", "-c", script], [("PATH", "/usr/bin:/bin")]), [0, writing, 2], False)
        os.close(writing)
        assert os.read(reading, 100) == b"ready\n"
        messages.send(ours, {"signal": int(signal.SIGINT)})
        ending = attend(ours)
    assert ending.code == 5
    assert os.read(reading, 100) == b"got it\n"
    os.close(reading)
    process.wait(timeout=30)


def test_kill_and_stop_are_not_sent_on() -> None:
    ours, theirs = pair()
    reading, writing = os.pipe()
    process = stub(theirs)
    with ours:
        stay.hand_over(ours, inherit.gather(["cat"], [("PATH", "/usr/bin:/bin")]), [reading, 1, 2], False)
        os.close(reading)
        for number in (int(signal.SIGKILL), int(signal.SIGSTOP), 0, -1, 10**9, "TERM", None, True):
            messages.send(ours, {"signal": number})
        os.close(writing)  # cat ends by itself
        ending = attend(ours)
    assert ending.code == 0
    process.wait(timeout=30)


def test_a_launcher_that_dies_hangs_up_on_its_job_but_not_on_a_detached_one() -> None:
    for detached, expected in ((False, b"hung up\n"), (True, b"went on\n")):
        ours, theirs = pair()
        held, release = os.pipe()
        reading, writing = os.pipe()
        process = stub(theirs)
        script = "trap 'echo hung up; exit' HUP; echo ready; read x; echo went on"
        stay.hand_over(ours, inherit.gather(["sh", "-c", script], []), [held, writing, 2], detached)
        os.close(writing)
        os.close(held)
        assert os.read(reading, 100) == b"ready\n"
        ours.close()
        if detached:
            os.write(release, b"\n")
        assert os.read(reading, 100) == expected
        process.wait(timeout=30)
        os.close(release)
        os.close(reading)


def test_ignored_signals_stay_ignored_and_the_stubs_own_do_not() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        _, out, *_ = job("grep", "SigIgn", "/proc/self/status")
    finally:
        signal.signal(signal.SIGHUP, before)
    ignored = {
        number
        for number in (signal.SIGHUP, signal.SIGPIPE, signal.SIGXFSZ)
        if int(out.split()[1], 16) >> (number - 1) & 1
    }
    # Python itself ignores the last two; others may be ignored by whoever started the tests.
    assert ignored == {signal.SIGHUP}


HUGE = b"[\xff\xff\xff\x7f"  # a list of 2^31-1 values, of which none is there


NO_JOBS = [marshal.dumps([]), marshal.dumps({}), marshal.dumps({"detached": True})]


@pytest.mark.parametrize("first", [b"", b"[]", HUGE, b"\xff", *NO_JOBS])
def test_what_is_no_job_ends_the_stub(first: bytes) -> None:
    ours, theirs = pair()
    process = stub(theirs)
    if first:
        ours.send(first)
    ours.close()
    assert process.wait(timeout=30) == 1


@pytest.mark.skipif(os.getuid() != 0, reason="needs a second user")
def test_another_users_socket_is_refused() -> None:
    ours, theirs = pair()
    process = stub(theirs, user=1)
    with ours:
        stay.hand_over(ours, inherit.gather(["true"], []), [0, 1, 2], detached=False)
        assert process.wait(timeout=30) == 1
        assert messages.receive(ours, os.getuid()) == (b"", [])


@pytest.mark.skipif(os.getuid() != 0, reason="needs a second user")
def test_a_message_of_another_user_is_refused() -> None:
    ours, theirs = pair()
    with ours, theirs:
        pid = os.fork()
        if pid == 0:
            os.setuid(1)
            messages.send(theirs, {"started": "x"})
            os._exit(0)
        os.waitpid(pid, 0)
        with pytest.raises(messages.Broken, match="a message from user 1"):
            messages.receive(ours, os.getuid())


@pytest.mark.skipif(os.getuid() != 0, reason="needs a second user")
def test_root_tells_a_user_how_the_job_ended() -> None:
    """systemd runs the end script as root, with the launcher's socket as its output."""
    ours, theirs = pair()
    with ours, theirs:
        pid = os.fork()
        if pid == 0:
            os.setuid(1)
            os._exit(0 if messages.receive(ours, 1)[0] == b"result=success\n" else 1)
        os.write(theirs.fileno(), b"result=success\n")
        assert os.waitpid(pid, 0)[1] == 0


def test_memory_peak_is_read_from_the_own_cgroup(tmp_path: Path) -> None:
    own = tmp_path / (cgroup_of(os.getpid()) or "").lstrip("/")
    own.mkdir(parents=True, exist_ok=True)
    assert peak(str(tmp_path)) is None
    (own / "memory.peak").write_text("4096\n")
    assert peak(str(tmp_path)) == 4096


def test_a_message_is_one_mapping() -> None:
    one, two = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with one, two:
        messages.send(one, {"a": "ä"})
        assert marshal.loads(two.recv(100)) == {"a": "ä"}
