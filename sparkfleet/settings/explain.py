"""Says what pydantic found in the words of the fleet file."""

from __future__ import annotations

import difflib
import typing
from collections.abc import Iterable

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from sparkfleet.settings.problems import Path, Problem, show
from sparkfleet.settings.retired import retired

EXPECTED = {
    "string_type": "text",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "dict_type": "a mapping",
    "model_type": "a mapping",
    "list_type": "a list",
    "tuple_type": "a list",
}
BOUNDS = {
    "greater_than_equal": ("at least", "ge"),
    "greater_than": ("more than", "gt"),
    "less_than_equal": ("at most", "le"),
    "less_than": ("less than", "lt"),
}


def problems_of(error: ValidationError, model: type[BaseModel]) -> list[Problem]:
    """Pydantic's errors as problems, contradictions among fields left out."""
    return [explain(e, model) for e in error.errors(include_url=False) if e["type"] != "contradiction"]


def contradictions_of(error: ValidationError, model: type[BaseModel]) -> list[Problem]:
    """The contradictions among fields only."""
    return [explain(e, model) for e in error.errors(include_url=False) if e["type"] == "contradiction"]


def explain(error: ErrorDetails, model: type[BaseModel]) -> Problem:
    kind, value, context = error["type"], error["input"], error.get("ctx", {})
    path: Path = error["loc"]
    if path and path[-1] == "[key]":
        path = path[:-1]
    if kind == "extra_forbidden":
        if said := retired(path):
            return Problem(path, said)
        return Problem(path, f"unknown key, {suggestion(str(path[-1]), known_keys(model, path[:-1]))}")
    if kind == "missing":
        return Problem(path, "is missing")
    if kind == "contradiction":
        return Problem((*path, *context["at"]), context["text"])
    if kind == "expected":
        at: Path = context["at"]
        for part in at:
            value = value[part]
        return Problem((*path, *at), f"got {show(value)}, expected {context['expected']}")
    return Problem(path, f"got {show(value)}, expected {expected(error)}")


def expected(error: ErrorDetails) -> str:
    kind, context = error["type"], error.get("ctx", {})
    if kind == "literal_error":
        return str(context["expected"]).replace("'", "")
    if kind in BOUNDS:
        words, key = BOUNDS[kind]
        return f"{words} {context[key]}"
    text = EXPECTED.get(kind, f"something else ({kind})")
    if kind == "string_type" and isinstance(error["input"], bool | int | float):
        return f"{text}: put it in quotes"
    return text


def suggestion(word: str, known: Iterable[str]) -> str:
    """The nearest of the known words, or all of them."""
    known = list(known)
    near = difflib.get_close_matches(word, known, n=1)
    return f"did you mean {near[0]}?" if near else f"expected one of {', '.join(known)}"


def known_keys(model: type[BaseModel], path: Path) -> list[str]:
    """The keys that the model has at a path."""
    here: object = model
    for part in path:
        if isinstance(here, type) and issubclass(here, BaseModel):
            here = here.model_fields[str(part)].annotation
        else:  # dict[name, Model] or list[Model]
            here = typing.get_args(here)[-1]
    if isinstance(here, type) and issubclass(here, BaseModel):
        return list(here.model_fields)
    raise TypeError(f"{path} is no model")
