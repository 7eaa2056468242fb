"""Where the sudo password comes from: a command, or a terminal; and one line where it cannot be had."""

import pytest

from sparkfleet import sudo_password as module
from sparkfleet.audit.password import SudoPassword
from sparkfleet.sudo_password import PASSWORD_COMMAND, NoSudoPassword, sudo_password


def test_the_first_line_of_the_command_is_the_password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(PASSWORD_COMMAND, r"printf 'a b\nsecond\n'")
    assert sudo_password("on h") == "a b"
    password = SudoPassword()
    assert (password.get(), password.problem) == ("a b", "")


@pytest.mark.parametrize(
    ("command", "problem"),
    [
        ("false", "Command '['false']' returned non-zero exit status 1."),
        ("/nonexistent", "[Errno 2] No such file or directory: '/nonexistent'"),
        ("'", "No closing quotation"),
        (" ", "it is blank"),
    ],
)
def test_a_command_that_fails_is_one_line(command: str, problem: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(PASSWORD_COMMAND, command)
    with pytest.raises(NoSudoPassword) as caught:
        sudo_password("on h")
    assert str(caught.value) == f"${PASSWORD_COMMAND} failed: {problem}"
    password = SudoPassword()
    assert (password.get(), password.problem) == ("", str(caught.value))


def test_without_a_terminal_nobody_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(PASSWORD_COMMAND, raising=False)
    monkeypatch.setattr(module, "has_terminal", lambda: False)
    with pytest.raises(NoSudoPassword, match=r"set \$SPARKFLEET_SUDO_PASSWORD_COMMAND to a command that prints it"):
        sudo_password("on h")
