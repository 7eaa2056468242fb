"""The `sparkfleet` command. Each subcommand adds its arguments and is a function from them to an exit code."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from typing import NoReturn

from sparkfleet import deploy, enrol
from sparkfleet.admin import command as admin
from sparkfleet.audit import command as audit
from sparkfleet.exit_codes import CommandFailed, ExitCode
from sparkfleet.link import command as link
from sparkfleet.metrics import command as metrics
from sparkfleet.mistakes import VERBOSE, mistake
from sparkfleet.notify import command as notify
from sparkfleet.rollout import command as rollout
from sparkfleet.settings import FleetError
from sparkfleet.site import init
from sparkfleet.stack import command as stack
from sparkfleet.status import command as status
from sparkfleet.version import release

SUBCOMMANDS = (
    init.add_arguments,
    enrol.add_arguments,
    deploy.add_arguments,
    rollout.add_arguments,
    audit.add_arguments,
    stack.add_arguments,
    status.add_arguments,
    notify.add_arguments,
    metrics.add_arguments,
    link.add_arguments,
    admin.add_arguments,
)
"""Each adds its subcommand, with `run` (arguments → exit code) as a default."""

EPILOG = """\
exit codes: 0 clean, 1 failure, 2 drift found, 3 unreachable or no evidence, 4 bad configuration, 130 interrupted"""


class Parser(argparse.ArgumentParser):
    """A wrong call is bad configuration (4), not argparse's 2, which means drift here."""

    def error(self, message: str) -> NoReturn:
        raise CommandFailed(f"{message} (see {self.prog} --help)", ExitCode.BAD_CONFIGURATION)


def parser() -> Parser:
    """The whole command line."""
    top = Parser(prog="sparkfleet", description="Keeps a fleet of DGX Sparks safe to train on.", epilog=EPILOG)
    top.add_argument("--version", action="version", version=f"sparkfleet {release()}")
    top.add_argument("--verbose", action="store_true", help="show the traceback of a mistake of ours")
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for add_arguments in SUBCOMMANDS:
        add_arguments(commands)
    return top


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a subcommand. Returns its exit code; whatever a user can mend is one line on stderr (a fleet file's
    mistakes one line each)."""
    try:
        arguments = parser().parse_args(argv)
        if arguments.verbose:
            os.environ[VERBOSE] = "1"
        run: Callable[[argparse.Namespace], ExitCode] = arguments.run
        return int(run(arguments))
    except CommandFailed as error:
        print(f"sparkfleet: {error}", file=sys.stderr)
        return int(error.code)
    except FleetError as error:
        print(error, file=sys.stderr)
        return int(ExitCode.BAD_CONFIGURATION)
    except KeyboardInterrupt:
        print("\nsparkfleet: interrupted; nothing is half-written, the same command goes on from here", file=sys.stderr)
        return int(ExitCode.INTERRUPTED)
    except BrokenPipeError:
        # Whoever read the output has gone (`| head`). Python would complain once more when it flushes at exit.
        sys.stdout = None
        return int(ExitCode.FAILURE)
    except Exception as error:
        print(f"sparkfleet: {mistake(error)}", file=sys.stderr)
        return int(ExitCode.FAILURE)


if __name__ == "__main__":
    sys.exit(main())
