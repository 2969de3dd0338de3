"""The extension's stub says what the built module has: the same names, the same parameters."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from spacetime import _native

STUB = ast.parse(Path(_native.__file__).with_name("_native.pyi").read_text())
Function = ast.FunctionDef


def parameters(function: Function) -> tuple[list[str], list[str], set[str]]:
    """Positional names without self, keyword-only names, and those with a default."""
    spec = function.args
    positional = [arg.arg for arg in (*spec.posonlyargs, *spec.args)]
    optional = set(positional[len(positional) - len(spec.defaults) :])
    keyword = [arg.arg for arg in spec.kwonlyargs]
    optional |= {n for n, given in zip(keyword, spec.kw_defaults, strict=True) if given}
    return [name for name in positional if name != "self"], keyword, optional


def built(doc: str) -> Function:
    """The function that the binding describes in the first line of its documentation."""
    line = doc.splitlines()[0]
    (function,) = ast.parse(f"def {line}: ...").body
    assert isinstance(function, Function)
    return function


def stubbed_functions() -> Iterator[tuple[str, object, Function]]:
    for node in STUB.body:
        if isinstance(node, Function):
            yield node.name, getattr(_native, node.name), node
        if not isinstance(node, ast.ClassDef):
            continue
        for member in node.body:
            plain = isinstance(member, Function) and not any(
                isinstance(d, ast.Name) and d.id == "property" for d in member.decorator_list
            )
            if isinstance(member, Function) and plain:
                owner = getattr(_native, node.name)
                yield f"{node.name}.{member.name}", getattr(owner, member.name), member


FUNCTIONS = {name: (function, node) for name, function, node in stubbed_functions()}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_parameters_are_the_same(name: str) -> None:
    function, node = FUNCTIONS[name]
    assert function.__doc__, name
    assert parameters(built(function.__doc__)) == parameters(node)


def test_the_module_has_no_other_names() -> None:
    stubbed = {node.name for node in STUB.body if isinstance(node, ast.ClassDef | Function)}
    stubbed |= {
        node.target.id
        for node in STUB.body
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)
    }
    assert {name for name in vars(_native) if not name.startswith("_")} == stubbed


@pytest.mark.parametrize("node", [n for n in STUB.body if isinstance(n, ast.ClassDef)])
def test_classes_have_the_same_members(node: ast.ClassDef) -> None:
    owner = getattr(_native, node.name)
    members = {m.name for m in node.body if isinstance(m, Function)} | {
        m.target.id
        for m in node.body
        if isinstance(m, ast.AnnAssign) and isinstance(m.target, ast.Name)
    }
    known = {name for name in vars(owner) if not name.startswith("_")}
    if hasattr(owner, "n_fields"):  # a named tuple: these are the C API's own
        known -= {"n_fields", "n_sequence_fields", "n_unnamed_fields"}
    assert known == {m for m in members if not m.startswith("__")}
    assert all(hasattr(owner, m) for m in members)
