"""Loads fixtures: `lab`, `spark1` and `spark2` for every test, and `load` for tests of fleet files."""

import signal

from hypothesis import settings

# How long an example takes says nothing here: hosts, or other tests, keep the machine busy.
settings.register_profile("busy", deadline=None)
settings.load_profile("busy")

pytest_plugins = ["tests.lab.fixtures", "tests.unit.fleet_files"]


def pytest_configure() -> None:
    """Takes signals as a terminal would have them.

    nohup(1) and a shell's background jobs ignore some. All programs that tests start would inherit that, and a hang-up
    or a Ctrl-C would pass by those that wait for it.
    """
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in (signal.SIGHUP, signal.SIGQUIT):
        if signal.getsignal(number) == signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)
