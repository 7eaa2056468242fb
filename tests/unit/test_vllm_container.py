"""The measure vllm_container: settings, unit, plans, `spark-vllm`. Docker's command line is a double."""

from __future__ import annotations

import http.server
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from sparkfleet.settings import VllmContainerSettings
from sparkhost.base.resource import Change, Context, Failed, Refused
from sparkhost.training_slice import docker
from sparkhost.vllm_container import cli
from sparkhost.vllm_container import resources as vllm_container
from sparkhost.vllm_container.resources import ContainerHost, ContainerImage, NoImages, OldImages
from sparkhost.vllm_room import main as vllm_main
from sparkhost.vllm_room.main import WITHIN
from tasks import vllm_container as measure
from tests.unit.fleet_files import Load, load, refused

__all__ = ["load"]

DIGEST = f"sha256:{'1a' * 32}"
IMAGE = f"vllm/vllm-openai@{DIGEST}"
OTHER = f"vllm/vllm-openai@sha256:{'2b' * 32}"
FILES = Path(__file__).resolve().parents[2] / "files"
# A double of docker(1): images and containers are files; its words are those of Docker 20.10 and 26.
DOCKER = """\
#!/bin/sh
cd {state} || exit 9
echo "$*" >> log
case "$1 $2" in
  "image inspect") grep -qxF "$3" images || {{ echo "Error: No such image: $3" >&2; exit 1; }} ;;
  "info --format") echo {state} ;;
  "pull --quiet")
    [ -e unreachable ] && {{ echo "Error response from daemon: Get https://nvcr.io/v2/: no route" >&2; exit 1; }}
    echo "$3" >> images; echo "$3" ;;
  "image rm") grep -vxF "$3" images > left; mv left images; echo "Untagged: $3" ;;
  "ps --all") grep -qxF "${{4#ancestor=}}" used && echo somebody; exit 0 ;;
  "container inspect") cat container 2>/dev/null || {{ echo "Error: No such container: $3" >&2; exit 1; }} ;;
  *) echo "docker: '$1' is not a docker command." >&2; exit 125 ;;
esac
"""


def settings(**more: Any) -> VllmContainerSettings:
    return VllmContainerSettings.model_validate({"state": "present", "digest": DIGEST, **more})


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the double keeps what there is; enough space is free."""
    programs = tmp_path / "bin"
    programs.mkdir()
    folder = tmp_path / "docker"
    folder.mkdir()
    for name, text in (("docker", DOCKER.format(state=folder)), ("dockerd", ""), ("systemctl", ACTIVE)):
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)
    for name in ("images", "used", "log"):
        (folder / name).touch()
    monkeypatch.setenv("PATH", f"{programs}:/usr/bin:/bin")
    monkeypatch.setattr(vllm_container, "RECORD", tmp_path / "record.json")
    return folder


ACTIVE = "#!/bin/sh\necho ActiveState=active\n"


def test_a_pull_comes_first_and_only_once(state: Path) -> None:
    image = ContainerImage(IMAGE, 0)
    (change,) = image.plan(Context())
    assert (change.what, change.summary.partition(" (")[0]) == (IMAGE, "pull the image")
    image.apply()
    assert image.plan(Context()) == []
    assert vllm_container.pulled() == [IMAGE]


def test_a_pull_that_fails_is_one_line_and_is_ours_to_clear_away(state: Path) -> None:
    (state / "unreachable").touch()
    with pytest.raises(Failed) as caught:
        ContainerImage(IMAGE, 0).apply()
    assert str(caught.value) == (f"{IMAGE}: docker pull: Error response from daemon: Get https://nvcr.io/v2/: no route")
    assert vllm_container.pulled() == [IMAGE]
    NoImages().apply()
    assert not vllm_container.RECORD.exists()


def test_a_full_disk_is_told_before_anything_is_pulled(state: Path) -> None:
    with pytest.raises(Refused, match=r"GiB free, \d+ GiB are needed to pull .*: free some space there"):
        ContainerImage(IMAGE, 2**60).plan(Context())
    assert "pull" not in (state / "log").read_text()


def test_old_images_go_when_nobody_uses_them(state: Path) -> None:
    for reference in (OTHER, IMAGE):
        ContainerImage(reference, 0).apply()
    old = OldImages(IMAGE)
    coming = Context(pending=[Change(IMAGE, "pull the image")])
    assert old.plan(coming) == [], "the server still runs from it"
    (state / "used").write_text(f"{OTHER}\n")
    context = Context()
    assert old.plan(context) == []
    assert context.warnings == [f"{OTHER} stays: used by somebody"]
    (state / "used").write_text("")
    assert [change.what for change in old.plan(Context())] == [OTHER]
    old.apply()
    assert (old.plan(Context()), vllm_container.pulled()) == ([], [IMAGE])
    assert (state / "images").read_text() == f"{IMAGE}\n"


def test_what_others_have_pulled_is_theirs(state: Path) -> None:
    (state / "images").write_text(f"{OTHER}\n")
    assert NoImages().plan(Context()) == []
    assert (state / "log").read_text() == "", "a host without the measure need not have Docker at all"


def test_without_docker_or_a_cap_nothing_is_done(state: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    slice_file = tmp_path / "training.slice"
    host = ContainerHost(str(slice_file))
    with pytest.raises(Refused, match=r"nothing would cap the container: set training_slice\.state to present"):
        host.plan(Context())
    assert host.plan(Context(pending=[Change(str(slice_file), "create")])) == []
    slice_file.touch()
    assert host.plan(Context()) == []
    (tmp_path / "bin" / "systemctl").write_text("#!/bin/sh\necho ActiveState=inactive\n")
    with pytest.raises(Refused, match="systemctl start docker"):
        host.plan(Context())
    monkeypatch.setattr(docker, "installed", lambda: False)
    with pytest.raises(Refused, match=r"install docker\.io"):
        host.plan(Context())


def test_a_damaged_record_is_told(state: Path) -> None:
    vllm_container.RECORD.write_text("[1]")
    with pytest.raises(Failed, match="is damaged"):
        OldImages("").plan(Context())


def command(text: str) -> list[str]:
    """The words of ExecStart=, as systemd splits them: none of ours needs quotes."""
    line = text.replace("\\\n", " ").partition("\nExecStart=")[2].partition("\n")[0]
    return line.split()


def test_the_command_names_image_cap_slice_and_share() -> None:
    chosen = settings(model="/models/a", models="/srv/models", slice="serving", arguments=["--max-model-len=8192"])
    words = command(measure.unit(chosen))
    assert words[:2] == ["/usr/bin/docker", "run"]
    docker_words, vllm_words = words[: words.index(IMAGE)], words[words.index(IMAGE) + 1 :]
    options = dict(pairwise(docker_words))
    assert options["--cgroup-parent"] == "serving.slice"
    assert options["--memory"] == options["--memory-swap"] == str(24 * 2**30)
    assert options["--publish"] == "127.0.0.1:8000:8000"
    assert "/srv/models:/models:ro" in docker_words
    assert options["--gpus"] == "all"
    assert vllm_words == [
        *("vllm", "serve", "/models/a", "--host", "0.0.0.0", "--port", "8000"),
        *("--gpu-memory-utilization", "0.4", "--load-format", "fastsafetensors", "--max-model-len=8192"),
    ]


def test_the_loader_is_left_to_vllm_where_auto_is_set() -> None:
    assert "--load-format" not in command(measure.unit(settings(model="a", load_format="auto")))


def test_it_starts_only_once_its_share_of_the_memory_is_available() -> None:
    text = measure.unit(settings(model="a", gpu_memory_utilization=0.55))
    assert f"\nExecStartPre={measure.COMMAND} room 0.55\n" in text
    assert text.index("ExecStartPre=-/usr/bin/docker rm") < text.index(f"ExecStartPre={measure.COMMAND}")
    limits = dict(re.findall(r"^(StartLimit\w+|RestartSec|TimeoutStartSec)=(\d+)$", text, re.MULTILINE))
    spent = int(limits["StartLimitBurst"]) * (WITHIN + int(limits["RestartSec"]))
    assert spent < int(limits["StartLimitIntervalSec"]), "else the limit would never be reached"
    assert int(limits["TimeoutStartSec"]) > WITHIN


@pytest.mark.parametrize(("available", "code"), [(49, 0), (48, 1)])
def test_room_is_a_share_of_the_memory(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], available: int, code: int
) -> None:
    monkeypatch.setattr(vllm_main, "meminfo", lambda: {"MemTotal": 122 * 2**30, "MemAvailable": available * 2**30})
    assert vllm_main.main(["0.4", "--within", "0"]) == code
    said = capsys.readouterr().err
    assert ("48.0 GiB of memory are available and vLLM takes 48.8" in said) == bool(code)


def test_room_that_comes_late_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = iter([10, 20, 60])
    monkeypatch.setattr(vllm_main, "EVERY", 0.0)
    monkeypatch.setattr(vllm_main, "meminfo", lambda: {"MemTotal": 122 * 2**30, "MemAvailable": next(answers) * 2**30})
    assert cli.main(["room", "0.4"]) == 0


def test_the_gpu_can_come_by_cdi_or_not_at_all_and_the_address_be_of_ipv6() -> None:
    words = command(measure.unit(settings(model="a", gpus="cdi", address="::1")))
    assert words[words.index("--device") + 1] == "nvidia.com/gpu=all"
    assert "[::1]:8000:8000" in words
    assert not {"--gpus", "--device"} & {*command(measure.unit(settings(model="a", gpus="none")))}


@pytest.mark.parametrize(
    ("given", "line"),
    [
        (
            "{state: present}",
            "state: is present without vllm_container.digest: set it to what",
        ),
        ("{digest: 25.11-py3}", "digest: got '25.11-py3', expected sha256: and 64 lower-case hex digits"),
        (
            "{image: 'nvcr.io/nvidia/vllm:25.11-py3'}",
            "image: got 'nvcr.io/nvidia/vllm:25.11-py3', expected a",
        ),
        (
            "{gpu_memory_utilization: 0.9}",
            "gpu_memory_utilization: got 0.9, expected a share from 0.05 to 0.7",
        ),
        ("{arguments: [--port=80]}", "arguments: has --port=80: use the setting for it"),
        ("{arguments: [--gpu-memory-utilization]}", "arguments: has --gpu-memory-utilization: use the setting for it"),
        ("{arguments: ['a b']}", "arguments[0]: got 'a b', expected one word of letters"),
        ("{memory_max: 1MiB}", "memory_max: got 1MiB, expected 64MiB at least"),
    ],
)
def test_a_mistake_is_one_line(load: Load, given: str, line: str) -> None:
    (found,) = refused(load, f"defaults: {{vllm_container: {given}}}\nhosts: {{a: }}\n")
    assert found.startswith(f"x.yaml:1: defaults.vllm_container.{line}")


@pytest.fixture
def server() -> Iterator[int]:
    """Something that answers at /health as vLLM does."""

    class Answers(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if self.path == "/health" else 404)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Answers) as found:
        threading.Thread(target=found.serve_forever, daemon=True).start()
        yield found.server_port
        found.shutdown()


@pytest.fixture
def spark_vllm(state: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    def called(*words: str) -> subprocess.CompletedProcess[str]:
        start = "import sys; from sparkhost.vllm_container.cli import main; sys.exit(main())"
        env = {**os.environ, "PYTHONPATH": str(FILES / "host")}
        return subprocess.run(
            [sys.executable, "-c", start, *words], env=env, capture_output=True, text=True, check=False, timeout=60
        )

    return called


def container(port: int) -> str:
    """What `docker container inspect` prints of it, as far as it is read."""
    return json.dumps(
        [
            {
                "Id": "4711" * 16,
                "Config": {"Image": IMAGE},
                "State": {"Status": "running", "Pid": os.getpid()},
                "HostConfig": {"PortBindings": {"8000/tcp": [{"HostIp": "127.0.0.1", "HostPort": str(port)}]}},
            }
        ]
    )


def test_the_server_is_asked_whether_it_is_well(
    state: Path, server: int, spark_vllm: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    (state / "container").write_text(container(server))
    told = spark_vllm()
    assert (told.returncode, told.stderr) == (0, "")
    assert f"image    {IMAGE}" in told.stdout
    assert f"running, answers at http://127.0.0.1:{server}" in told.stdout
    found = json.loads(spark_vllm("--json").stdout)
    assert (found["healthy"], found["state"], found["image"]) == (True, "running", IMAGE)
    (state / "container").write_text(container(1))
    deaf = spark_vllm()
    assert (deaf.returncode, "does not answer" in deaf.stdout) == (1, True)


def test_no_server_and_no_docker_are_told_apart(
    state: Path, spark_vllm: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    none = spark_vllm()
    assert (none.returncode, none.stdout.startswith("no server: ")) == (1, True)
    (tmp_path / "bin" / "docker").write_text("#!/bin/sh\necho permission denied on docker.sock >&2; exit 1\n")
    told = spark_vllm()
    assert (told.returncode, told.stdout) == (3, "spark-vllm: permission denied on docker.sock\n")
