"""Fleet files: each kind of mistake is one exact line."""

# ruff: noqa: E501 - a mistake and its message are one row of a table.
from __future__ import annotations

import re
from typing import Any

import hypothesis
import pytest
import yaml
from hypothesis import strategies as st

from sparkfleet.settings import FleetError, FleetFile, HostEntry, HostSettings, load_fleet
from sparkfleet.settings.measures import UV_SHA256
from tests.unit.fleet_files import Load, refused

UNTIMED = hypothesis.settings(deadline=None)  # the machine may be busy

A, B = "a" * 64, "b" * 64
SETTINGS = "hosts: {a: {settings: {%s}}}"
AT = "x.yaml:1: hosts.a.settings."
SIZE = "a size such as 16GiB or 512MiB (GiB is 2^30 bytes)"
TEXT = "expected text: put it in quotes"
PATH = "an absolute path such as /usr/local/cuda, of letters, digits and ._+@,=~- without a final /"


NO_HOST = "is empty, expected at least one host: `sparkfleet enrol NAME` adds one"


@pytest.mark.parametrize(
    ("setting", "line"),
    [
        # Not what was expected
        ("swap: {margin: 16GB}", f"swap.margin: got '16GB', expected {SIZE}"),
        ("swap: {margin: 16}", f"swap.margin: got 16, expected {SIZE}"),
        ("swap: {margin: -1GiB}", f"swap.margin: got '-1GiB', expected {SIZE}"),
        ("swap: {margin: .nan}", f"swap.margin: got nan, expected {SIZE}"),
        ("swap: {margin: 9999999999999999999GiB}", "swap.margin: got '9999999999999999999GiB', expected a size below 8388608TiB"),
        ("swap: {mode: false}", "swap.mode: got false, expected off or keep"),
        ("swap: {mode: no}", "swap.mode: got 'no', expected off or keep"),
        ("swap: {mode: }", "swap.mode: got nothing, expected off or keep"),
        ("swap: {mode: [off]}", "swap.mode: got a list, expected off or keep"),
        ("swap: {state: gone}", "swap.state: got 'gone', expected present, unmanaged or absent"),
        ("swap: off", "swap: got 'off', expected a mapping"),
        ("swap: [[[off]]]", "swap: got a list, expected a mapping"),
        ("cuda_env: {arch_list: 12.1}", f"cuda_env.arch_list: got 12.1, {TEXT}"),
        ("cuda_env: {arch_list: sm_121}", "cuda_env.arch_list: got 'sm_121', expected compute capabilities such as 12.1a or 12.0;12.1a"),
        ("cuda_env: {home: cuda}", f"cuda_env.home: got 'cuda', expected {PATH}"),
        ("cuda_env: {ptxas: /a/../b}", f"cuda_env.ptxas: got '/a/../b', expected {PATH}"),
        ("cuda_env: {ld_library_path: yes}", "cuda_env.ld_library_path: got 'yes', expected export, ldconfig or none"),
        ("cuda_env: {variables: [A=1]}", "cuda_env.variables: got a list, expected a mapping"),
        ("cuda_env: {variables: {A: 1}}", f"cuda_env.variables.A: got 1, {TEXT}"),
        ("uv: {version: 0.13}", f"uv.version: got 0.13, {TEXT}"),
        ("uv: {version: 0.13.9rc1}", "uv.version: got '0.13.9rc1', expected a release such as 0.13.9"),
        (f"uv: {{sha256: {{armv7: {A}}}}}", "uv.sha256.armv7: got 'armv7', expected aarch64 or x86_64"),
        ("uv: {sha256: {aarch64: ABC}}", "uv.sha256.aarch64: got 'ABC', expected a SHA-256 of 64 lower-case hex digits"),
        ("uv: {config: {a: [{b: null}]}}", "uv.config.a[0].b: got nothing, expected a value (TOML has no null: leave the key out)"),
        ("uv: {config: {a: 9223372036854775808}}", "uv.config.a: got 9223372036854775808, expected a number of 64 bits"),
        ("uv: {config: {a: .inf}}", "uv.config.a: got inf, expected a finite number"),
        # Unknown keys
        ("swpa: {}", "swpa: unknown key, did you mean swap?"),
        ("gpu: {}", f"gpu: unknown key, expected one of {', '.join(HostSettings.model_fields)}"),
        ("swap: {Mode: off}", "swap.Mode: unknown key, did you mean mode?"),
        ("swap: {xyz: 1}", "swap.xyz: unknown key, expected one of state, mode, margin"),
        # Contradictions
        ("uv: {version: 0.14.0}", "uv.version: got '0.14.0' with the aarch64 hash of 0.13.9: set uv.sha256.aarch64 beside it, "
         "as PyPI lists it for the files of uv 0.14.0"),
        (f"uv: {{sha256: {{x86_64: {A}}}}}", "uv.sha256: the x86_64 hash is not that of 0.13.9, leave it out: it is known"),
        (f"uv: {{version: 0.14.0, sha256: {{aarch64: {A}, x86_64: {UV_SHA256['x86_64']}}}}}",
         "uv.version: got '0.14.0' with the x86_64 hash of 0.13.9: set uv.sha256.x86_64 beside it, "
         "as PyPI lists it for the files of uv 0.14.0"),
        ("uv: {sha256: {}}", "uv.sha256: is empty, expected the SHA-256 of a wheel by architecture"),
        # Hostile values
        (r'swap: {mode: "a\x1b[31m\n\0"}', r"swap.mode: got 'a\x1b[31m\n\x00', expected off or keep"),
        (f"swap: {{mode: {'x' * 500}}}", f"swap.mode: got '{'x' * 59}…', expected off or keep"),
        (f"swap: {{mode: {'9' * 90}}}", f"swap.mode: got {'9' * 59}…, expected off or keep"),
        (r'"\x1b[2J": 1', rf"'\x1b[2J': unknown key, expected one of {', '.join(HostSettings.model_fields)}"),
        (r'swap: {mode: "\u202effo"}', r"swap.mode: got '\u202effo', expected off or keep"),
    ],
)  # fmt: skip
def test_a_mistake_in_settings_is_one_line(load: Load, setting: str, line: str) -> None:
    assert refused(load, SETTINGS % setting) == [AT + line]


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("[]", ["x.yaml:1: got a list, expected a mapping"]),
        ("text", ["x.yaml:1: got 'text', expected a mapping"]),
        ("version: 1", ["x.yaml:1: hosts: is missing"]),
        ("hosts: {}", [f"x.yaml:1: hosts: {NO_HOST}"]),
        ("hosts:", [f"x.yaml:1: hosts: {NO_HOST}"]),
        ("hosts: [a]", ["x.yaml:1: hosts: got a list, expected a mapping"]),
        ("hosts: {a: b}", ["x.yaml:1: hosts.a: got 'b', expected a mapping"]),
        ("version: 2\nhosts: {a: }", ["x.yaml:1: version: got 2, expected 1, the only version of this format"]),
        ("version: true\nhosts: {a: }", ["x.yaml:1: version: got true, expected 1, the only version of this format"]),
        ("host: {a: }\nhosts: {a: }", ["x.yaml:1: host: unknown key, did you mean hosts?"]),
        ("hosts: {a: {adress: b}}", ["x.yaml:1: hosts.a.adress: unknown key, did you mean address?"]),
        ("hosts:\n  a:\n  b:\n  a:\n", ["x.yaml:4: hosts.a: is given twice, first on line 2"]),
        ("hosts: {a: {groups: [g]}}",
         ["x.yaml:1: hosts.a.groups[0]: got 'g', expected a group that is declared under groups (none is declared)"]),
        ("groups: {gpus: }\nhosts: {a: {groups: [gpu]}}",
         ["x.yaml:2: hosts.a.groups[0]: got 'gpu', expected a group that is declared under groups (did you mean gpus?)"]),
        ("groups: {g: }\nhosts: {a: {groups: [g, g]}}", ["x.yaml:2: hosts.a.groups[1]: got 'g' a second time"]),
        ("hosts: {a: {groups: g}}", ["x.yaml:1: hosts.a.groups: got 'g', expected a list"]),
        ("hosts: {a: {groups: [1]}}", [f"x.yaml:1: hosts.a.groups[0]: got 1, {TEXT}"]),
        ("groups: {g: {swap: {mode: on}}}\nhosts: {a: }", ["x.yaml:1: groups.g.swap.mode: got 'on', expected off or keep"]),
        ("groups: {a: }\nhosts: {a: }", ["x.yaml:2: hosts.a: got 'a', which is also the name of a group"]),
        ("hosts: {all: }", ["x.yaml:1: hosts.all: got 'all', which is also the name of a group"]),
        ("hosts: {a: {address: h}, b: {address: H}}",
         ["x.yaml:1: hosts.b.address: 'H' port 22 is already the host a on line 1"]),
        ("hosts: {a: {address: b}, b: {port: 22}}", ["x.yaml:1: hosts.b: 'b' port 22 is already the host a on line 1"]),
        ('hosts: {a: {address: "::1"}, b: {address: "0::1"}}',
         ["x.yaml:1: hosts.b.address: '0::1' port 22 is already the host a on line 1"]),
        ('known_hosts: ""\nhosts: {a: }',
         ["x.yaml:1: known_hosts: got '', expected a path without control characters that does not start with -"]),
        ('hosts: {a: {ssh_key: "-oProxyCommand=x"}}',
         ["x.yaml:1: hosts.a.ssh_key: got '-oProxyCommand=x', expected a path without control characters "
          "that does not start with -"]),
        ("hosts: {a: {user: -root}}", ["x.yaml:1: hosts.a.user: got '-root', expected a user name"]),
        ("rollout: {canary: [b]}\nhosts: {aa: , ab: }",
         ["x.yaml:1: rollout.canary[0]: got 'b', expected a host that is declared under hosts (did you mean ab?)"]),
        ("rollout: {batch: 101%}\nhosts: {a: }",
         ["x.yaml:1: rollout.batch: got '101%', expected a number of hosts from 1, or a share from 1% to 100%"]),
        ("rollout: {batch: 0}\nhosts: {a: }",
         ["x.yaml:1: rollout.batch: got 0, expected a number of hosts from 1, or a share from 1% to 100%"]),
        ("rollout: {busy: ask}\nhosts: {a: }",
         ["x.yaml:1: rollout.busy: got 'ask', expected skip, wait or force"]),
        ("rollout: {wait_up_to: 5}\nhosts: {a: }",
         ["x.yaml:1: rollout.wait_up_to: got 5, expected a duration such as 500ms, 30s, 5min or 2h"]),
        # One mistake, not one for each host that inherits it
        ("defaults: {swap: {mode: on}}\nhosts: {a: , b: , c: }",
         ["x.yaml:1: defaults.swap.mode: got 'on', expected off or keep"]),
        ("groups:\n  g: {uv: {version: 0.14.0}}\nhosts: {a: {groups: [g]}, b: {groups: [g]}}",
         ["x.yaml:2: groups.g.uv.version: got '0.14.0' with the aarch64 hash of 0.13.9: set uv.sha256.aarch64 beside it, "
          "as PyPI lists it for the files of uv 0.14.0"]),
        # A value that is no YAML scalar is reported once
        ("hosts: {a: {settings: {swap: {mode: !!int x}}}}",
         ["x.yaml:1: hosts.a.settings.swap.mode: got 'x', expected a value of the type !!int"]),
    ],
)  # fmt: skip
def test_a_mistake_in_the_file_is_one_line(load: Load, text: str, lines: list[str]) -> None:
    assert refused(load, text) == lines


@pytest.mark.parametrize(
    "name", ["-a", "a b", "u@a", "a/b", "a,b", "@local", "", "a:1", "a*", "[a]", "é", "a" * 300, "a-", ".a"]
)
def test_a_bad_host_name_is_refused(load: Load, name: str) -> None:
    [line] = refused(load, f'hosts: {{"{name}": }}')
    assert line.endswith("expected a host name of letters, digits, dots, dashes and underscores")


@pytest.mark.parametrize(
    "name", ["all", "inventory", "self", "names_data", "override_data", "_a", "1a", "a b", "-a", ""]
)
def test_a_bad_group_name_is_refused(load: Load, name: str) -> None:
    [line] = refused(load, f'groups: {{"{name}": }}\nhosts: {{a: }}')
    assert re.search(r": got '.*', expected a group name (of letters|that pyinfra does not use)", line)


@pytest.mark.parametrize("port", ["0", "65536", "-1", "true", "'22'", "22.0", "[22]", "0x10000"])
def test_a_bad_port_is_refused(load: Load, port: str) -> None:
    [line] = refused(load, f"hosts: {{a: {{port: {port}}}}}")
    assert line.endswith("expected a port from 1 to 65535")


@pytest.mark.parametrize(
    "address", ["[::1]", "300.1.1.1", "1.2.3", "a b", "-x", "u@h", "h:22", "", "fe80::1%e;id", "a/b"]
)
def test_a_bad_address_is_refused(load: Load, address: str) -> None:
    [line] = refused(load, f'hosts: {{a: {{address: "{address}"}}}}')
    assert line.endswith("expected a host name, an IPv4 address, or an IPv6 address without brackets")


@pytest.mark.parametrize(
    "address", ["10.0.0.1", "fd00::1", "fe80::1%eth0", "::ffff:10.0.0.1", "spark.example.com", "x_1", "spark-1"]
)
def test_a_good_address_is_taken(load: Load, address: str) -> None:
    assert load(f'hosts: {{a: {{address: "{address}"}}}}').hosts[0].address == address


def test_all_mistakes_are_reported_in_the_order_of_the_file(load: Load) -> None:
    text = """\
versoin: 1
groups:
  g: {swap: {mode: on}}
hosts:
  a: {port: x, groups: [h]}
  b: {groups: [g]}
  b: {}
  c: {groups: [h], settings: {uv: {version: "1"}, swap: {margin: 1, mode: 2}}}
  d: {settings: {uv: {version: 1.0.0}}}
  e: {address: d}
  f: {address: e}
  g: {groups: [h]}
  h: {address: "E"}
  i: {address: e}
"""
    lines = refused(load, text)
    assert [line.partition(": ")[0] + " " + line.split(": ")[1] for line in lines] == [
        "x.yaml:1 versoin",
        "x.yaml:3 groups.g.swap.mode",
        "x.yaml:5 hosts.a.port",
        "x.yaml:7 hosts.b",
        "x.yaml:8 hosts.c.settings.swap.mode",
        "x.yaml:8 hosts.c.settings.swap.margin",
        "x.yaml:8 hosts.c.settings.uv.version",
        "x.yaml:9 hosts.d.settings.uv.version",
        "x.yaml:12 hosts.g.groups[0]",
        "x.yaml:12 hosts.g",
        "x.yaml:13 hosts.h.address",
        "x.yaml:14 hosts.i.address",
    ]


FIELDS = {
    *FleetFile.model_fields,
    *HostEntry.model_fields,
    *HostSettings.model_fields,
    *(key for measure in HostSettings() for key in dict(measure[1])),
}
KEYS = st.sampled_from(sorted(FIELDS)) | st.text(max_size=8)
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=12,
)


@UNTIMED
@hypothesis.given(
    st.fixed_dictionaries(
        {"hosts": ANYTHING}, optional={"defaults": ANYTHING, "groups": ANYTHING, "known_hosts": ANYTHING}
    )
)
def test_whatever_is_in_it_a_file_is_taken_or_refused_line_by_line(
    tmp_path_factory: pytest.TempPathFactory, value: dict[str, Any]
) -> None:
    path = tmp_path_factory.getbasetemp() / "any.yaml"
    path.write_text(yaml.safe_dump(value), encoding="utf-8", newline="")
    lines: tuple[str, ...] = ()
    try:
        load_fleet(path)
    except FleetError as error:
        lines = error.lines
    for line in lines:
        assert line.startswith(f"{path}:")
        assert line.isprintable()
        assert not re.search(r"pydantic|\[type=|something else", line)
