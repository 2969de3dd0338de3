"""Decoded YAML or JSON as the dataclasses that say what may stand in a file.

msgspec checks that every field is known, there and of its type, and the bounds that a type states;
a dataclass checks its own fields itself, as for whoever makes one in Python. Every refusal names
the field by its path in the file, such as `tenants[1].slo_ms`, and says what it must be.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, TypeVar

import msgspec
from msgspec import inspect as types

from spacetime.workload.workload import shown

T = TypeVar("T")
Refusal = Callable[[str, str], Exception]  # an error made of a field and what is wrong with it
MISSING = re.compile(r"Object missing required field `(.*)`")
WORDS: dict[type[types.Type], str] = {
    types.IntType: "a whole number",
    types.FloatType: "a number",
    types.StrType: "a text that is not empty",
    types.BoolType: "true or false",
    types.VarTupleType: "a list",
    types.DataclassType: "fields and values",
}


class FieldValue(NamedTuple):
    """A value of a file, where it stands, and the type that the dataclasses give it."""

    path: str
    value: Any
    type: types.Type


def converted(
    data: object, kind: type[T], refusal: Refusal, *, whole: str, nulls: bool = True
) -> T:
    """`data`, as `json.loads` gives it, as the dataclass `kind`; lists become tuples.

    Raises what `refusal` makes of a field and what is wrong with it; what is wrong with all of
    `data` is said of `whole`. Without `nulls` a field that may be left out may not be null either.
    An error that a dataclass raises has to state `field` and `problem`.
    """
    root = FieldValue("", data, types.type_info(kind))
    for given in _values(root):
        if given.value is None and not nulls:
            raise refusal(given.path or whole, f"must be {_noun(given.type)}, got null")
        if isinstance(given.type, types.DataclassType) and isinstance(given.value, dict):
            known = [field.name for field in given.type.fields]
            for name in given.value:
                if name not in known:
                    problem = f"is not a field here; there are {', '.join(known)}"
                    raise refusal(_joined(given.path, str(name)), problem)
    try:
        return msgspec.convert(data, kind)
    except msgspec.ValidationError as error:
        field, problem = _told(error, root)
        raise refusal(field or whole, problem) from error


def _told(error: msgspec.ValidationError, root: FieldValue) -> tuple[str, str]:
    """The field that an error of msgspec is about, and what is wrong with it."""
    said, at, path = str(error).rpartition(" - at `$")
    said, path = (said, path.strip(".`")) if at else (path, "")
    if isinstance(own := error.__cause__, Exception):  # raised by a dataclass of ours
        return _joined(path, own.field), own.problem  # type: ignore[attr-defined]
    if missing := MISSING.fullmatch(said):
        return _joined(path, missing[1]), "is missing; add it"
    given = next(given for given in _values(root) if given.path == path)
    noun = "a number of fewer digits" if "out of range" in said else _noun(given.type)
    return path, f"must be {noun}, got {shown(given.value)}"


def _values(given: FieldValue) -> Iterator[FieldValue]:
    """A value and all that are in it, as far as their types are known."""
    kind = _bare(given.type)
    yield given._replace(type=kind)
    if isinstance(kind, types.DataclassType) and isinstance(given.value, dict):
        for field in kind.fields:
            if field.name in given.value:
                inner = given.value[field.name]
                yield from _values(FieldValue(_joined(given.path, field.name), inner, field.type))
    elif isinstance(kind, types.TupleType | types.VarTupleType) and isinstance(given.value, list):
        for number, item in enumerate(given.value):
            if isinstance(kind, types.VarTupleType):
                inside = kind.item_type
            elif number < len(kind.item_types):
                inside = kind.item_types[number]
            else:
                return  # a list that is too long is refused as a whole
            yield from _values(FieldValue(f"{given.path}[{number}]", item, inside))


def _bare(kind: types.Type) -> types.Type:
    """A type without `| None`, which says that it may be left out; of `int | float` the latter."""
    if isinstance(kind, types.UnionType):
        return [inner for inner in kind.types if not isinstance(inner, types.NoneType)][-1]
    return kind


def _noun(kind: types.Type) -> str:
    if isinstance(kind, types.Metadata):  # a type that states its bounds says them, too
        return str((kind.extra_json_schema or {})["description"])
    if isinstance(kind, types.TupleType):
        return f"a list of {len(kind.item_types)}"
    return WORDS[type(kind)]


def _joined(path: str, name: str) -> str:
    return f"{path}.{name}".lstrip(".")
