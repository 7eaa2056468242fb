"""What replaces parts of pyinfra for speed gives the same results."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import gevent
import pyinfra
import pytest
from pyinfra.api import arguments, facts, util

from tasks.lib import origin, speed
from tasks.lib.wanted import wanted

# The package has a function of this name as well.
operation = sys.modules["pyinfra.api.operation"]


@pytest.fixture(params=[True, False])
def is_cli(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    monkeypatch.setattr(pyinfra, "is_cli", request.param)
    return bool(request.param)


@pytest.mark.parametrize("deploy_file", [None, __file__, "/no/such/deploy.py"])
def test_the_order_of_an_operation_is_the_stock_one(is_cli: bool, deploy_file: str | None) -> None:
    state: Any = SimpleNamespace(current_deploy_filename=deploy_file, current_op_file_number=3)

    orders: list[Callable[[Any], list[int]]] = [util.get_operation_order_from_stack, speed.operation_order]
    stock, ours = (order(state) for order in orders)
    assert ours == stock
    assert (len(ours) > 1) is (deploy_file != "/no/such/deploy.py")


def test_operations_on_two_lines_differ() -> None:
    state: Any = SimpleNamespace(current_deploy_filename=__file__, current_op_file_number=0)
    first = speed.operation_order(state)
    second = speed.operation_order(state)
    assert first != second


@pytest.fixture
def restored() -> Iterator[None]:
    places = [
        (operation, "get_operation_order_from_stack"),
        *((module, "all_global_arguments") for module in (arguments, facts)),
    ]
    before = [(module, name, getattr(module, name)) for module, name in places]
    yield
    for module, name, value in before:
        setattr(module, name, value)


@pytest.mark.usefixtures("restored")
def test_global_arguments_are_the_stock_ones() -> None:
    stock = arguments.all_global_arguments()
    speed.install()
    assert arguments.all_global_arguments() == stock
    assert getattr(facts, "all_global_arguments")() == stock  # noqa: B009 - mypy: imported there, not exported


@pytest.mark.usefixtures("restored")
@pytest.mark.parametrize(("variable", "release"), [("1", "3.10.0"), ("", "3.11.0")])
def test_pyinfra_is_left_alone(monkeypatch: pytest.MonkeyPatch, variable: str, release: str) -> None:
    monkeypatch.setenv("SPARKFLEET_STOCK_SPEED", variable)
    monkeypatch.setattr(speed, "version", lambda _name: release)
    speed.install()
    assert operation.get_operation_order_from_stack is util.get_operation_order_from_stack


def test_hosts_that_come_at_the_same_time_share_one_rendering(monkeypatch: pytest.MonkeyPatch) -> None:
    rendered: list[SimpleNamespace] = []

    def apply(settings: SimpleNamespace) -> tuple[()]:
        rendered.append(settings)
        return ()

    measure: Any = SimpleNamespace(__name__="tasks.swap", apply=apply)

    def version() -> str:
        gevent.sleep(0)  # as while git is waited for: other hosts come
        return "1"

    monkeypatch.setattr(origin, "version", version)
    monkeypatch.setattr("tasks.lib.wanted._MADE", {})
    hosts = [gevent.spawn(wanted, {"swap": {"margin": "1GiB"}}, [measure], local=False) for _ in range(20)]
    gevent.joinall(hosts, raise_error=True)
    assert len(rendered) == 1
    assert len({id(host.value) for host in hosts}) == 1
