"""The steps of a build that run foreign code: the seed's, each of them as the build's account, each resumable."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from sparkhost.base import bounded
from sparkhost.stack import store as stack_store
from sparkhost.stack.rules import flash_attention
from sparkhost.stack.users import ALL, CUDA, OF_CUDA
from sparkhost.stack.verify import distributions, site_packages, walk
from sparkhost.vllm_source import jobs as vllm_source_jobs
from sparkhost.vllm_source import record as vllm_source_record
from sparkhost.vllm_source.shell import Shell, StepFailed, one_line
from sparkhost.vllm_source.store import LAYER, Request, variables_of

REQUIREMENTS = ("requirements/build/cuda.txt", "requirements/build.txt")
"""Where vLLM has its build requirements: now, and before (0.13)."""
MOST_ROUNDS = 5
OF_VLLM = re.compile(r"vllm(==|$)")


@dataclass(frozen=True)
class Build:
    """A build in the making, and where its parts lie."""

    request: Request
    key: str
    release: str
    """Of the stack."""
    uv: str

    @property
    def work(self) -> Path:
        """What of it belongs to the build's account."""
        return vllm_source_record.STATE / "work" / self.key

    @property
    def source(self) -> Path:
        return self.work / "source"

    @property
    def tools(self) -> Path:
        """The environment that it is compiled in."""
        return self.work / "tools"

    @property
    def image(self) -> Path:
        """The environment as it will be, without the tools."""
        return self.work / "image"

    @property
    def stack(self) -> Path:
        return stack_store.home(self.release)

    def environment(self) -> dict[str, str]:
        """The variables of every command; nobody's own configuration is in them."""
        given = variables_of(self.request)
        cuda = [f"{given['CUDA_HOME']}/bin"] if "CUDA_HOME" in given else []
        return {
            "LC_ALL": "C.UTF-8",
            "HOME": str(vllm_source_record.STATE / "home"),
            "USER": "sparkfleet-build",
            "TMPDIR": str(self.work),
            "PATH": ":".join([str(self.tools / "bin"), *cuda, "/usr/local/bin", "/usr/bin", "/bin"]),
            "VIRTUAL_ENV": str(self.tools),
            "UV_CACHE_DIR": str(self.work / "cache"),
            "UV_LINK_MODE": "copy",
            "UV_NO_PROGRESS": "1",
            "UV_PYTHON_DOWNLOADS": "never",
            # As git does: a site's mirror has a certificate that the host knows, and uv's own list does not.
            "UV_SYSTEM_CERTS": "1",
            # A prompt would wait for ever; what is no transport of an admin's choice is not taken by a redirect either.
            "GIT_TERMINAL_PROMPT": "0",
            "GIT_SSH_COMMAND": "ssh -o BatchMode=yes",
            "GIT_ALLOW_PROTOCOL": "https:ssh:git:file",
            # By this a deploy sees that the release is in use (stack_store.users).
            "SPARKFLEET_STACK": f"{self.stack}/",
            **given,
        }


def checkout(build: Build, shell: Shell) -> str:
    """The wanted commit of the repository, and no other; what was fetched before is not fetched again."""
    git, commit, repository = ("git", "-C", str(build.source)), build.request.commit, build.request.repository
    if repository.startswith("/"):  # another account's repository is read all the same (git-config(1), safe.directory)
        lines = "".join(f"\tdirectory = {path}\n" for path in (repository, f"{repository}/.git"))
        shell.write(vllm_source_record.STATE / "home" / ".gitconfig", f"[safe]\n{lines}")
    shell.run("git", "init", "--quiet", build.source)
    shell.run(*git, "config", "remote.origin.url", repository)
    # The history tells vLLM its version (git describe); files of other commits are left out where the server can.
    refs = ("+refs/heads/*:refs/remotes/origin/*", "+refs/tags/*:refs/tags/*")
    shell.run(*git, "fetch", "--force", "--filter=blob:none", "origin", *refs)
    try:
        shell.run(*git, "cat-file", "-e", f"{commit}^{{commit}}")
    except StepFailed:
        try:
            shell.run(*git, "fetch", "origin", commit)  # on no branch any more
        except StepFailed as failure:
            raise StepFailed(f"{repository} has no commit {commit} (vllm_source.commit)", failure.status) from failure
    shell.run(*git, "checkout", "--quiet", "--force", "--detach", commit)
    found = shell.output(*git, "rev-parse", "HEAD").strip()
    if found != commit:
        raise StepFailed(f"{build.source} is at {found}, not at {commit}")
    return one_line(shell.output(*git, "log", "-1", "--format=%h of %cs: %s"))


def environment(build: Build, shell: Shell) -> str:
    """An environment for the tools, on top of the stack's release, whose torch it compiles against."""
    layered(build, shell, build.tools)
    return f"on {build.release}"


def layered(build: Build, shell: Shell, root: Path) -> None:
    """A new environment that imports from the release what it does not have itself."""
    shell.run(build.uv, "venv", "--clear", "--relocatable", "--python", interpreter(build), root)
    shell.write(site_packages(root) / LAYER, layer_of(build.release))


def interpreter(build: Build) -> Path:
    """The host's Python, which the release is of."""
    return (build.stack / "bin" / "python").resolve()


def layer_of(release: str) -> str:
    """The .pth file: not only a path, since packages of the release have .pth files of their own (site(3))."""
    return f'import site; site.addsitedir("{site_packages(stack_store.home(release))}")\n'


def existing_torch(build: Build, shell: Shell) -> str:
    """vLLM's own script takes torch out of its requirements: the stack's is there."""
    script = "use_existing_torch.py"
    if not (build.source / script).is_file():
        raise StepFailed(f"the checkout has no {script}: is {build.request.repository} vLLM's?")
    shell.run(build.tools / "bin" / "python", script, cwd=build.source)
    return "torch is the stack's"


def requirements(build: Build, shell: Shell) -> str:
    """cmake, ninja and whatever else vLLM is built with: wheels only, and none of what the stack has of CUDA's."""
    wanted = [build.request.requirements] if build.request.requirements else [*REQUIREMENTS]
    path = next((build.source / name for name in wanted if (build.source / name).is_file()), None)
    if path is None:
        raise StepFailed(f"the checkout has no {' or '.join(wanted)}: set vllm_source.requirements")
    constraints = build.work / "constraints-tools.txt"
    shell.write(constraints, constraints_of(build, CUDA))
    install(build, shell, build.tools, "--constraints", constraints, "--requirements", path)
    if double := shadowing(build.tools, {name for name in stack_versions(build) if OF_CUDA.fullmatch(name)}):
        raise StepFailed(f"{path.name} brings in {', '.join(double)}, which the stack has: vLLM would be built for it")
    return f"{len(distributions(site_packages(build.tools)))} packages"


def compiled(build: Build, shell: Shell) -> str:
    """The wheel. cmake's and ninja's directory stays in the checkout, so that a next try compiles what is missing."""
    request = build.request
    jobs = vllm_source_jobs.measured(request.memory_per_job, request.max_jobs, request.reserve)
    shell.say(f"MAX_JOBS={jobs.count} ({jobs.why})")
    shell.run("rm", "-rf", "--", build.work / "wheel")
    shell.run(
        *(build.uv, "build", "--wheel", "--no-build-isolation", "--python", build.tools / "bin" / "python"),
        *("--out-dir", build.work / "wheel", build.source),
        cwd=build.source,
        more={"MAX_JOBS": str(jobs.count)},
    )
    return f"{wheel_of(build).name}, MAX_JOBS={jobs.count} ({jobs.why})"


def wheel_of(build: Build) -> Path:
    """Raises StepFailed where there is not exactly one."""
    found = sorted((build.work / "wheel").glob("vllm-*.whl"))
    if len(found) != 1:
        raise StepFailed(f"the build has made {len(found)} wheels of vllm, expected one")
    return found[0]


def dependencies(build: Build, shell: Shell) -> str:
    """vLLM and what it needs beyond the stack, in an environment on top of the release.

    uv does not see the release below an environment. So it resolves everything but the stack's packages, and what came
    of it is compared with those afterwards: what an extra of theirs lacks is asked for in the next round.
    """
    layered(build, shell, build.image)
    excludes, constraints = build.work / "excludes.txt", build.work / "constraints.txt"
    shell.write(excludes, "".join(f"{name}\n" for name in stack_versions(build)))
    shell.write(constraints, constraints_of(build, ALL))
    wanted: list[str | Path] = [wheel_of(build)]
    for _ in range(MOST_ROUNDS):
        install(build, shell, build.image, "--excludes", excludes, "--constraints", constraints, *wanted)
        lacking = wants(build, shell)
        if lacking["unfit"]:
            raise StepFailed(
                f"{'; '.join(lacking['unfit'][:3])}: take a stack that has it (stack.profile), or another commit"
            )
        if not lacking["missing"]:
            break
        wanted += lacking["missing"]
    else:
        raise StepFailed(f"after {MOST_ROUNDS} rounds vLLM still needs {', '.join(lacking['missing'][:3])}")
    added = [f"{one.name} {one.version}" for one in distributions(site_packages(build.image)) if one.name != "vllm"]
    return f"beyond the stack: {', '.join(added) or 'nothing'}"


def wants(build: Build, shell: Shell) -> dict[str, list[str]]:
    """What vLLM needs and neither the image nor the release has; and what is there in another version."""
    places = (site_packages(build.image), site_packages(build.stack))
    script = Path(__file__).with_name("wants.py")  # not imported: `packaging` is the build's
    found: dict[str, list[str]] = json.loads(shell.output(build.tools / "bin/python", "-I", script, "vllm", *places))
    return found


def install(build: Build, shell: Shell, root: Path, *what: str | Path) -> None:
    """Installs wheels, never anybody's source: that would be one more thing to compile, from nobody named."""
    index: tuple[str, ...] = ()
    if build.request.index:
        place = build.request.index
        index = ("--no-index", "--find-links", place) if place.startswith("/") else ("--default-index", place)
    shell.run(build.uv, "pip", "install", "--python", root / "bin" / "python", "--no-build", *index, *what)


def constraints_of(build: Build, name: str) -> str:
    """The release's constraints without its vLLM, which is what is built."""
    lines = bounded.read_text(build.stack / name).splitlines()
    return "".join(f"{line}\n" for line in lines if not OF_VLLM.match(line))


def stack_versions(build: Build) -> dict[str, str]:
    """What the release has, but for vLLM. Raises StepFailed where it is damaged."""
    manifest = stack_store.read_manifest(build.stack)
    if manifest is None:
        raise StepFailed(f"{build.stack} is damaged: deploy the measure stack, or see spark-stack verify")
    return {name: version for name, version in manifest.wheels.items() if name != "vllm"}


def shadowing(root: Path, names: set[str]) -> Sequence[str]:
    """Distributions of an environment that are among these, and whatever makes flash-attn importable."""
    site = site_packages(root)
    found = [f"{one.name} {one.version}" for one in distributions(site) if one.name in names]
    return [*found, *(path for path in walk(site) if flash_attention(path))]


Run = Callable[[Build, Shell], str]
FOREIGN: tuple[tuple[str, Run], ...] = (
    ("checkout", checkout),
    ("environment", environment),
    ("existing-torch", existing_torch),
    ("requirements", requirements),
    ("compile", compiled),
    ("dependencies", dependencies),
)
