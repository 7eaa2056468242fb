"""`sparkfleet man` and `sparkfleet completion`: made of the very parsers and texts that `--help` shows."""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import sparkhost
from sparkfleet import child
from sparkfleet.exit_codes import CommandFailed, ExitCode
from sparkfleet.places import FILES
from sparkfleet.settings.explain import suggestion
from sparkfleet.settings.problems import escaped, show
from sparkfleet.version import release

MAN = "Prints the manual page of a program, of this one without a name: `sparkfleet man spark-run | man -l -`."
COMPLETION = """\
Prints what makes a shell complete the commands and options of sparkfleet: `sparkfleet completion bash >
~/.local/share/bash-completion/completions/sparkfleet`; for zsh in ~/.zshrc: `source <(sparkfleet completion zsh)`."""
WIDTH = 80
SECONDS = 30.0
ENTRY = re.compile(r"^from (sparkhost[.\w]+) import (\w+)$", re.MULTILINE)
HEADING = re.compile(r"[a-zA-Z][\w -]*:")
TAKES_WORDS = ("sparkhost.stack.cli", "sparkhost.vllm_source.cli")
"""Modules whose `main` is given the words of the command line."""
NOT_BY_HAND = ("spark-python", "spark-vllm-python", "spark-vllm-build", "spark-helper", "spark-job", "spark-job-end")
"""The Pythons hand everything on to Python; the others are started by systemd."""

Parser = argparse.ArgumentParser


def add_arguments(commands: argparse._SubParsersAction[Parser]) -> None:
    """Adds both subcommands."""
    man = commands.add_parser("man", help="print a manual page", description=MAN)
    man.add_argument("program", nargs="?", metavar="PROGRAM", help="of the hosts' programs, such as spark-run")
    man.add_argument("--write", type=Path, metavar="DIR", help="write the pages of all programs there, as DIR/man1/*.1")
    man.set_defaults(run=manual)
    completion = commands.add_parser("completion", help="print a shell's completion", description=COMPLETION)
    completion.add_argument("shell", choices=["bash", "zsh"])
    completion.set_defaults(run=complete)


def manual(arguments: argparse.Namespace) -> ExitCode:
    """Prints a page, or writes all. Raises CommandFailed: there is no such program, or a page cannot be written."""
    programs = hosts_programs()
    if arguments.write:
        for name in ["sparkfleet", *programs]:
            write(arguments.write / "man1" / f"{name}.1", page(name, programs))
        return ExitCode.CLEAN
    name = arguments.program or "sparkfleet"
    if name != "sparkfleet" and name not in programs:
        known = ["sparkfleet", *programs]
        raise CommandFailed(f"{show(name)} has no page: {suggestion(name, known)}", ExitCode.BAD_CONFIGURATION)
    sys.stdout.write(page(name, programs))
    return ExitCode.CLEAN


def write(path: Path, text: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise CommandFailed(f"{escaped(str(path))}: cannot be written: {error.strerror}") from error


def complete(arguments: argparse.Namespace) -> ExitCode:
    """Prints the completion."""
    head = ["autoload -Uz bashcompinit && bashcompinit"] if arguments.shell == "zsh" else []
    print("\n".join([*head, *completion()]))
    return ExitCode.CLEAN


def whole() -> Parser:
    from sparkfleet.cli import parser  # it lists this module

    return parser()


def below(parser: Parser) -> dict[str, Parser]:
    """The subcommands of a parser, by name."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            return dict(action.choices)
    return {}


def walk(parser: Parser, words: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Parser]]:
    """A parser and all below it, with the words that lead there."""
    yield words, parser
    for name, one in below(parser).items():
        yield from walk(one, (*words, name))


def completion() -> Iterator[str]:
    """A function for bash: the words that may follow the subcommands that stand there already; else files."""
    yield "# Made by `sparkfleet completion`; new with each version."
    yield "_sparkfleet() {"
    yield '    local word path="" next at'
    yield "    for ((at = 1; at < COMP_CWORD; at++)); do"
    yield '        next="${path:+$path }${COMP_WORDS[at]}"'
    yield '        case "$next" in'
    names = [" ".join(words) for words, _ in walk(whole()) if words]
    yield f"            {'|'.join(quoted(name) for name in names)}) path=$next ;;"
    yield "        esac"
    yield "    done"
    yield '    case "$path" in'
    for words, parser in walk(whole()):
        options = [word for action in parser._actions for word in action.option_strings if word.startswith("--")]
        choices = [
            str(word)
            for action in parser._actions
            if not action.option_strings and action.choices and not isinstance(action, argparse._SubParsersAction)
            for word in action.choices
        ]
        all_words = " ".join([*below(parser), *choices, *options])
        yield f"        {quoted(' '.join(words))}) word={quoted(all_words)} ;;"
    yield "    esac"
    yield '    mapfile -t COMPREPLY < <(compgen -W "$word" -- "${COMP_WORDS[COMP_CWORD]}")'
    yield "}"
    yield "complete -o default -F _sparkfleet sparkfleet"


def quoted(text: str) -> str:
    return f'"{text}"'


def hosts_programs() -> dict[str, Path]:
    """The programs that a deploy puts on a path for people, by name."""
    found = sorted(FILES.glob("*/spark-*"))
    return {path.name: path for path in found if path.name not in NOT_BY_HAND and ENTRY.search(path.read_text())}


def help_of(path: Path) -> str:
    """What a host's program says to --help, run from here. Raises CommandFailed."""
    entry = ENTRY.search(path.read_text())
    assert entry  # `hosts_programs` has looked
    words = "sys.argv[1:]" if entry[1] in TAKES_WORDS else ""
    code = f"import sys; from {entry[1]} import {entry[2]} as main; sys.exit(main({words}))"
    environment = {**os.environ, "PYTHONPATH": str(Path(sparkhost.__file__).parents[1]), "COLUMNS": str(WIDTH)}
    done = child.run(
        [sys.executable, "-c", code, "--help"], child.Limits(SECONDS), env=environment, stdin=subprocess.PIPE
    )
    if done.rc:
        raise CommandFailed(f"{path.name} --help ended with {done.rc}: {' '.join(done.lines()[-1:])}")
    return done.stdout.decode()


def page(name: str, programs: dict[str, Path]) -> str:
    """The page of a program, in the man macros. Raises CommandFailed."""
    if name in programs:
        return "\n".join([*head(name, summary(help_of(programs[name]))), *sections(help_of(programs[name]))]) + "\n"
    os.environ["COLUMNS"] = str(WIDTH)  # argparse breaks lines by it
    top = whole()
    lines = [*head(name, top.description or ""), *sections(top.format_help())]
    for words, parser in walk(top):
        if words:
            lines += [f'.SH "{" ".join((name, *words)).upper()}"', *sections(parser.format_help(), deeper=True)]
    return "\n".join(lines) + "\n"


def head(name: str, says: str) -> list[str]:
    title = f'.TH "{name.upper()}" "1" "" "sparkfleet {release()}" "sparkfleet"'
    return [
        '.\\" Made by `sparkfleet man` from --help.',
        title,
        ".SH NAME",
        f"{roff(name)} \\- {roff(says.rstrip('.'))}",
    ]


def summary(text: str) -> str:
    """The first sentence: beside the usage, else behind it."""
    if beside := re.search(r" {3,}(\S.*)$", text.partition("\n")[0]):
        return beside[1]
    blocks = text.split("\n\n")
    says = " ".join(blocks[1].split()) if len(blocks) > 1 else ""
    return re.split(r"(?<=[^.])[.:](?: |$)", says)[0]


def sections(text: str, *, deeper: bool = False) -> Iterator[str]:
    """A help text as it stands, its headings as those of the page."""
    macro = ".SS" if deeper else ".SH"
    usage, _, rest = text.partition("\n\n")
    yield f"{macro} SYNOPSIS"
    yield from block(usage.removeprefix("usage: ").split("\n"))
    held: list[str] = []
    if rest and not HEADING.fullmatch(rest.partition("\n")[0]):
        yield f"{macro} DESCRIPTION"
    for line in rest.rstrip().split("\n"):
        if HEADING.fullmatch(line):
            yield from block(held)
            held = []
            yield f'{macro} "{line[:-1].upper()}"'
        else:
            held.append(line)
    yield from block(held)


def block(lines: list[str]) -> Iterator[str]:
    """Lines that stay as they are."""
    if any(line.strip() for line in lines):
        yield ".nf"
        yield from (roff(line) for line in lines)
        yield ".fi"


def roff(text: str) -> str:
    """A line of text of which nothing is taken for a macro."""
    text = text.replace("\\", "\\e").replace("-", "\\-")
    return f"\\&{text}" if text.startswith((".", "'")) else text
