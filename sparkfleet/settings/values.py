"""Types of values that several settings share: strict, and each says what it expects."""

from __future__ import annotations

import ipaddress
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator

from sparkfleet.settings.problems import Path, wrong


@dataclass(frozen=True)
class Means:
    """What a type is called in docs/settings.md."""

    words: str


def _host_path(value: str) -> str:
    # It ends up in shell profiles, unit files, PATH and its kin: what means something there is kept out.
    if not re.fullmatch(r"(/[A-Za-z0-9._+@,=~-]+)+", value) or {".", ".."} & set(value.split("/")):
        raise wrong("an absolute path such as /usr/local/cuda, of letters, digits and ._+@,=~- without a final /")
    return value


HostPath = Annotated[str, AfterValidator(_host_path), Means("path on the host")]
"""A path on the host."""


def _local_path(value: str) -> str:
    if not value or value.startswith("-") or not value.isprintable():
        raise wrong("a path without control characters that does not start with -")
    return value


LocalPath = Annotated[str, AfterValidator(_local_path), Means("path on your machine")]
"""A path on the controller; relative to the fleet file, `~` is the home directory."""


def _sha256(value: str) -> str:
    if not re.fullmatch(r"[0-9a-f]{64}", value):
        raise wrong("a SHA-256 of 64 lower-case hex digits")
    return value


Sha256 = Annotated[str, AfterValidator(_sha256), Means("SHA-256")]


def _release(value: str) -> str:
    if not re.fullmatch(r"(0|[1-9][0-9]{0,5})(\.(0|[1-9][0-9]{0,5})){2}", value):
        raise wrong("a release such as 0.13.9")
    return value


Release = Annotated[str, AfterValidator(_release), Means("release")]


def _arch_list(value: str) -> str:
    if not re.fullmatch(r"[0-9]{1,2}\.[0-9][af]?(\+PTX)?(;[0-9]{1,2}\.[0-9][af]?(\+PTX)?)*", value):
        raise wrong("compute capabilities such as 12.1a or 12.0;12.1a")
    return value


ArchList = Annotated[str, AfterValidator(_arch_list), Means("compute capabilities")]


HOST_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,251}[A-Za-z0-9])?")


def _host_name(value: str) -> str:
    if not HOST_NAME.fullmatch(value):
        raise wrong("a host name of letters, digits, dots, dashes and underscores")
    return value


HostName = Annotated[str, AfterValidator(_host_name), Means("host name")]


def _group_name(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_-]{0,62}", value):
        raise wrong("a group name of letters, digits, dashes and underscores that starts with a letter")
    # `inventory` is every host of inventory.py, `all` every host; the others are parameters of pyinfra's Inventory.
    if value in ("all", "inventory", "self", "names_data", "override_data"):
        raise wrong("a group name that pyinfra does not use itself")
    return value


GroupName = Annotated[str, AfterValidator(_group_name), Means("group name")]


def _address(value: str) -> str:
    try:
        ipaddress.ip_address(value)
    except ValueError:
        if not HOST_NAME.fullmatch(value) or re.fullmatch(r"[0-9.]+", value):
            raise wrong("a host name, an IPv4 address, or an IPv6 address without brackets") from None
    if not re.fullmatch(r"[A-Za-z0-9._:%-]+", value):
        raise wrong("a host name, an IPv4 address, or an IPv6 address without brackets")
    return value


Address = Annotated[str, AfterValidator(_address), Means("name or address")]


def _port(value: Any) -> int:
    # Not `ge`/`le`: a bool is an int to Python, and one message serves every mistake.
    if type(value) is not int or not 1 <= value <= 65535:
        raise wrong("a port from 1 to 65535")
    return value


Port = Annotated[int, BeforeValidator(_port), Means("port")]


def _format_version(value: Any) -> int:
    if type(value) is not int or value != 1:
        raise wrong("1, the only version of this format")
    return value


FormatVersion = Annotated[int, BeforeValidator(_format_version), Means("1")]


def _service_name(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9:_.@-]{1,200}\.service", value) or value.startswith(("-", ".")):
        raise wrong("the name of a service's unit such as node-exporter.service")
    return value


ServiceName = Annotated[str, AfterValidator(_service_name), Means("service")]


def _unit_pattern(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9:_.@\\*?\[\]-]{1,200}", value) or value.startswith("-"):
        raise wrong("a unit name or a shell pattern of unit names such as docker-*.scope")
    if value.strip("*?") in ("", ".service", ".scope"):
        raise wrong("a pattern that does not match every unit")
    return value


UnitPattern = Annotated[str, AfterValidator(_unit_pattern), Means("unit name or pattern")]


def _module_name(value: str) -> str:
    # It ends up in a command line of root's.
    if not re.fullmatch(r"[a-z0-9][a-z0-9_-]{0,55}", value):
        raise wrong("the name of a kernel module, such as sbsa_gwdt")
    return value


ModuleName = Annotated[str, AfterValidator(_module_name), Means("kernel module")]


def _user_name(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9_.][A-Za-z0-9_.@\\$-]{0,63}", value):
        raise wrong("a user name")
    return value


UserName = Annotated[str, AfterValidator(_user_name), Means("user name")]


def _new_user_name(value: str) -> str:
    # Stricter than what exists: it is given to useradd(8), becomes a directory, and must not look like a number.
    if not re.fullmatch(r"[a-z_][a-z0-9_-]{0,31}", value) or value == "root":
        raise wrong("a user name of lower-case letters, digits, dashes and underscores that starts with a letter")
    return value


NewUserName = Annotated[str, AfterValidator(_new_user_name), Means("user name")]
"""A user that is created where it is missing."""


def _unix_group(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_.-]{0,31}", value) or value == "root":
        raise wrong("the name of a Unix group such as training, not root")
    return value


UnixGroup = Annotated[str, AfterValidator(_unix_group), Means("Unix group")]


def _user_or_group(value: str) -> str:
    if not re.fullmatch(r"@?[A-Za-z0-9_.][A-Za-z0-9_.@\\$-]{0,63}", value):
        raise wrong("a user name, or @ and the name of a Unix group, such as @sudo")
    return value


UserOrGroup = Annotated[str, AfterValidator(_user_or_group), Means("user name, or @group")]


def _public_key(value: str) -> str:
    # One line of authorized_keys(5), without options in front: they could run commands.
    security_keys = r"sk-(ssh-ed25519|ecdsa-sha2-nistp256)@openssh\.com"
    kinds = rf"(ssh-(ed25519|rsa)|ecdsa-sha2-nistp(256|384|521)|{security_keys})"
    if not re.fullmatch(rf"{kinds} [A-Za-z0-9+/]{{20,8000}}={{0,2}}( [ -~]{{1,200}})?", value):
        raise wrong("a public key as ssh-keygen writes it: ssh-ed25519 AAAA… comment")
    return value


PublicKey = Annotated[str, AfterValidator(_public_key), Means("public key")]


def _weight(value: Any) -> int:
    # Not `ge`/`le`: a bool is an int to Python, and one message serves every mistake.
    if type(value) is not int or not 1 <= value <= 10000:
        raise wrong("a weight from 1 to 10000")
    return value


Weight = Annotated[int, BeforeValidator(_weight), Means("weight")]


def _count(value: Any) -> int:
    if type(value) is not int or not 1 <= value <= 4_000_000:
        raise wrong("a number from 1 to 4000000")
    return value


Count = Annotated[int, BeforeValidator(_count), Means("whole number")]


def _batch(value: Any) -> str:
    text = str(value) if type(value) is int else value
    match = re.fullmatch(r"([1-9][0-9]{0,5})(%?)", text) if isinstance(text, str) else None
    if not match or (match[2] and int(match[1]) > 100):
        raise wrong("a number of hosts from 1, or a share from 1% to 100%")
    return match[0]


Batch = Annotated[str, BeforeValidator(_batch), Means("number or share")]


def _stack_profile(value: str) -> str:
    if not re.fullmatch(r"[a-z][a-z0-9-]{0,31}", value):
        raise wrong("the name of a folder below files/stack, such as current")
    return value


StackProfile = Annotated[str, AfterValidator(_stack_profile), Means("profile")]


def _stack_release(value: str) -> str:
    if not re.fullmatch(r"[a-z][a-z0-9-]{0,31}-[0-9a-f]{12}", value):
        raise wrong("a release as `spark-stack list` names it, such as current-1a2b3c4d5e6f")
    return value


StackRelease = Annotated[str, AfterValidator(_stack_release), Means("release of the stack")]


def _keep(value: Any) -> int:
    if type(value) is not int or not 1 <= value <= 20:
        raise wrong("a number from 1 to 20")
    return value


Keep = Annotated[int, BeforeValidator(_keep), Means("whole number")]


def _toml_table(value: dict[str, Any]) -> dict[str, Any]:
    _check_toml(value, ())
    return value


def _check_toml(value: Any, at: Path) -> None:
    match value:
        case None:
            raise wrong("a value (TOML has no null: leave the key out)", at=at)
        case int() if not -(2**63) <= value < 2**63:
            raise wrong("a number of 64 bits", at=at)
        case float() if not math.isfinite(value):
            raise wrong("a finite number", at=at)
        case Mapping():
            for key, item in value.items():
                if not isinstance(key, str):
                    raise wrong("keys that are text", at=at)
                _check_toml(item, (*at, key))
        case list():
            for index, item in enumerate(value):
                _check_toml(item, (*at, index))
        case str() | bool() | int() | float():
            pass
        case _:
            raise wrong("text, a number, true, false, a list or a mapping", at=at)


TomlTable = Annotated[dict[str, Any], AfterValidator(_toml_table), Means("mapping")]
"""A mapping that can be written as TOML."""
