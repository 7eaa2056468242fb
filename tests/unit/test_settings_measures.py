"""The measures' settings: what each accepts, and that every field is documented and shown in the example."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
from pydantic import ValidationError

from sparkfleet.settings import CudaEnvSettings, HostSettings, Measure
from sparkfleet.settings.environment import LONGEST_ENTRY, OF_THE_LOGIN, OWNED
from sparkfleet.settings.explain import problems_of

ROOT = Path(__file__).resolve().parents[2]

MEASURES: dict[str, type[Measure]] = {name: type(measure) for name, measure in HostSettings()}
OFF_BY_DEFAULT = {
    "cluster_link": "unmanaged",
    "gpu_clock": "absent",
    "headless": "absent",
    "vllm_container": "absent",
    "vllm_source": "absent",
}
FIELDS = [(name, key) for name, measure in MEASURES.items() for key in measure.model_fields]


@pytest.mark.parametrize("name", MEASURES)
def test_a_measure_has_defaults_a_purpose_and_descriptions(name: str) -> None:
    measure = MEASURES[name]
    assert issubclass(measure, Measure)
    assert measure().state == OFF_BY_DEFAULT.get(name, "present")
    assert measure.__doc__ != Measure.__doc__
    assert all(field.description for field in measure.model_fields.values())
    assert measure.model_config["frozen"]
    assert measure.model_config["strict"]
    assert measure.model_config["extra"] == "forbid"


@pytest.mark.parametrize(("name", "key"), FIELDS)
@pytest.mark.parametrize("value", [None, True, 7, 1.5, "\0", [], [[]], {"\0": {}}, 10**400])
def test_no_wrong_value_is_explained_in_words_of_pydantic(name: str, key: str, value: object) -> None:
    try:
        HostSettings.model_validate({name: {key: value}})
    except ValidationError as error:
        problems = problems_of(error, HostSettings)
    else:
        problems = []
    assert not [p for p in problems if "something else" in p.text]


@pytest.mark.parametrize(
    "value", ["0", "a b", "https://u:p%40x@h/?q=1&r", "~/x", "*", "!x", "{a,b}", "a;b", "a|b", "x=y", "x" * 800]
)
def test_a_variable_that_every_consumer_reads_the_same_is_taken(value: str) -> None:
    assert CudaEnvSettings(variables={"A": value}).variables == {"A": value}


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("", "not empty"),
        ("a\nb", "one line of printable ASCII"),
        ("a\0b", "one line of printable ASCII"),
        ("a\tb", "one line of printable ASCII"),
        ("ä", "one line of printable ASCII"),
        (" a", "no space at either end"),
        ("a ", "no space at either end"),
        ('a"', 'no " in it'),
        ("a'", "no ' in it"),
        ("a\\", r"no \\ in it"),
        ("$HOME", r"no \$ in it"),
        ("`id`", "no ` in it"),
        ("a#b", "no # in it: pam_env cuts the value there"),
        ("@{HOME}", "no @{ in it"),
        ("x" * LONGEST_ENTRY, "at most 900 characters"),
    ],
)
def test_a_variable_that_the_consumers_read_differently_is_refused(value: str, reason: str) -> None:
    with pytest.raises(ValidationError, match=reason):
        CudaEnvSettings(variables={"A": value})


@pytest.mark.parametrize("name", [*OWNED, *OF_THE_LOGIN, "1A", "A-B", "A B", "", "A=B", "Ä", "A\n", "A" * 129])
def test_a_variable_that_is_not_the_sites_to_set_is_refused(name: str) -> None:
    with pytest.raises(ValidationError, match="expected a variable"):
        CudaEnvSettings(variables={name: "x"})


@pytest.mark.parametrize(
    "path",
    [
        "",
        "/",
        "cuda",
        "-/cuda",
        "/cuda/",
        "/a//b",
        "/a b",
        "/a:b",
        "/a'b",
        '/a"b',
        "/$a",
        "/a\\b",
        "/a\n",
        "/a/../b",
        "/./a",
        "/é",
        "/a%b",
        "/a#b",
    ],
)
def test_a_path_that_needs_quoting_somewhere_is_refused(path: str) -> None:
    with pytest.raises(ValidationError, match="expected an absolute path"):
        CudaEnvSettings(home=path)


@pytest.mark.parametrize("arch_list", ["12.1a", "12.0;12.1a", "9.0+PTX", "10.3f", "12.0;12.1a+PTX"])
def test_compute_capabilities_are_taken(arch_list: str) -> None:
    assert CudaEnvSettings(arch_list=arch_list).arch_list == arch_list


@pytest.mark.parametrize(
    "arch_list", ["", "12", "sm_121a", "12.1a;", ";12.1a", "12.1a 12.0", "12.1z", "12.1a\n", "all"]
)
def test_what_is_no_compute_capability_is_refused(arch_list: str) -> None:
    with pytest.raises(ValidationError, match="expected compute capabilities"):
        CudaEnvSettings(arch_list=arch_list)


def test_ptxas_follows_the_toolkit_unless_it_is_set() -> None:
    assert CudaEnvSettings().ptxas_path == "/usr/local/cuda/bin/ptxas"
    assert CudaEnvSettings(home="/opt/cuda-13").ptxas_path == "/opt/cuda-13/bin/ptxas"
    assert CudaEnvSettings(ptxas="/opt/ptxas").ptxas_path == "/opt/ptxas"


def test_defaults_cannot_be_changed_from_one_host_to_the_next() -> None:
    HostSettings().cuda_env.variables["A"] = "leaked"
    try:
        assert CudaEnvSettings().variables == {}
        assert HostSettings().cuda_env.variables == {}
    finally:
        HostSettings().cuda_env.variables.clear()


def test_the_library_imports_neither_pyinfra_nor_tasks() -> None:
    """But for what pyinfra itself loads: operations, facts and the inventory connector (ADR 15)."""
    package = ROOT / "sparkfleet"
    front_door = {package / "connector.py", package / "facts.py", *(package / "operations").glob("*.py")}
    for path in {*package.rglob("*.py")} - front_door:
        for node in ast.walk(ast.parse(path.read_text())):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not {name.partition(".")[0] for name in names} & {"pyinfra", "pyinfra_cli", "tasks"}, path
