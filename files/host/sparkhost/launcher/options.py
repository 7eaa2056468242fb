"""The command line of spark-run. Not argparse: importing it takes longer than all else that a start needs."""

from __future__ import annotations

from sparkhost.base.units import LEAST_MEMORY, Mistake, is_name, parse_duration, parse_size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

USAGE = """\
usage: spark-run [OPTIONS] -- COMMAND [ARGUMENT...]   run a training job, capped, killable, in a cgroup of its own
       spark-run ps [--all] [--json]                  your jobs
       spark-run logs ID|NAME                         what a detached job has written
       spark-run stop ID|NAME                         SIGTERM, and SIGKILL half a minute later
       spark-run wait ID|NAME                         wait for a job; its exit code
       spark-run clean [--yes]                        what your runs left behind: ray, vLLM workers, /dev/shm

options:
  --memory SIZE    what this job promises to stay below, CPU and GPU memory together, such as 60G (G is 2^30 bytes);
                   default: the host's setting, else all that training.slice has
  --wait[=TIME]    wait, for TIME at most, until its promise fits beside those of the jobs that run; Ctrl-C gives up
  --plain-env      do not tell PyTorch, JAX and JIT builds of the promise by variables (PYTORCH_ALLOC_CONF, MAX_JOBS, …)
  --need SIZE      memory that should be available before it starts; default: --memory, else the host's setting
  --time TIME      ended after this time: 30min, 8h, 2d
  --name NAME      a name beside its id
  --detach         go on without this terminal, also after logging out; output: spark-run logs
  --env-only A,B   give the job these variables only (and HOME, PATH, USER, SHELL, LANG, LC_*, TERM)
  --host-ipc       share /dev/shm and System V IPC with the host; else the job has its own
  --drop-cache     drop the page cache first where that gives CUDA more room
  --no-preflight   do not look at the memory first
  --quiet          no summary at the end

Directory, environment, umask, limits and terminal are as without it. At the end it tells the time, the peak of memory,
and who or what ended the job.
Exit code: the command's own, 128+n where signal n ended it; 125 there was no job, 2 a mistake on the command line.
spark-top shows who holds the memory, spark-why explains what the memory watchdog ended.

examples:
  spark-run -- uv run python train.py
  spark-run --memory 60G --time 8h --name sft --detach -- uv run python train.py
  spark-run --memory 60G --wait -- uv run python train.py
  spark-run logs sft; spark-run wait sft"""

TOP_USAGE = """\
usage: spark-top [--json | --watch]

Who holds the memory now: jobs, sessions, containers and services of all users. PROMISE: what a job was started with
(spark-run --memory). USE: CPU and GPU together. CPU: what dropping clean page cache would not give back. GPU: as NVML
tells it by process; nvidia-smi says N/A on a Spark.

options:
  --json   one JSON object; sizes in bytes, gpu null where it is not known
  --watch  live, with what waits and what the watchdog did to work of yours; q ends it

Exit code: 0, 2 a mistake on the command line. Whether the next run has room: spark-preflight.

examples:
  spark-top
  spark-top --watch"""


class Options:
    """What was asked for; sizes in bytes, times in seconds."""

    def __init__(self) -> None:
        self.argv: tuple[str, ...] = ()
        self.memory: int | None = None
        self.need: int | None = None
        self.time: int | None = None
        self.name: str | None = None
        self.env_only: tuple[str, ...] | None = None
        self.detach = False
        self.host_ipc = False
        self.wait = False
        self.wait_at_most: int | None = None
        self.plain_env = False
        self.drop_cache = False
        self.preflight = True
        self.quiet = False


def parse(arguments: Sequence[str]) -> Options:
    """The options in front of `--`, or of the first word that is none, and the command behind.

    Raises:
        Mistake: with the option, the value, and what is expected.
    """
    options = Options()
    rest = list(arguments)
    while rest and rest[0].startswith("-"):
        word = rest.pop(0)
        if word == "--":
            break
        name, equals, value = word.partition("=")
        if name == "--wait":
            options.wait = True
            if equals:
                _set(options, name, value)
            continue
        flags = {"--detach", "--host-ipc", "--drop-cache", "--no-preflight", "--plain-env", "--quiet"}
        if name in flags:
            if equals:
                raise Mistake(f"{name}: takes no value")
            setattr(options, name[2:].replace("-", "_").replace("no_", ""), name != "--no-preflight")
            continue
        if name not in ("--memory", "--need", "--time", "--name", "--env-only"):
            raise Mistake(f"{word}: unknown option, see spark-run --help; a command goes behind --")
        if not equals:
            if not rest:
                raise Mistake(f"{name}: a value is missing")
            value = rest.pop(0)
        _set(options, name, value)
    options.argv = tuple(rest)
    if not options.argv:
        raise Mistake("a command is missing: spark-run -- COMMAND, see spark-run --help")
    return options


def _set(options: Options, name: str, value: str) -> None:
    try:
        match name:
            case "--memory":
                options.memory = parse_size(value)
                if options.memory < LEAST_MEMORY:
                    raise Mistake(f"got {value!r}, expected 32M at least")
            case "--need":
                options.need = parse_size(value)
            case "--time":
                options.time = parse_duration(value)
            case "--wait":
                options.wait_at_most = parse_duration(value)
            case "--name":
                if not is_name(value):
                    raise Mistake(f"got {value!r}, expected at most 48 letters, digits, dots, dashes and underscores")
                options.name = value
            case _:
                options.env_only = tuple(filter(None, value.split(",")))
    except Mistake as mistake:
        raise Mistake(f"{name}: {mistake}") from None
