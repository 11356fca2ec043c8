# SPDX-License-Identifier: Apache-2.0
"""Which outside programs the driver starts, read out of its source.

Every call that starts a process is followed back to the name of its program:
through constants, local variables and functions that put arguments together.
One that cannot be followed is an error, so that none is missed.
"""

from __future__ import annotations

import ast
import importlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import csi_driver

_ROOT: Final = Path(next(iter(csi_driver.__path__)))
_RUNNERS: Final = {
    "commands": {"run", "check", "find"},
    "os": {"execv", "execve", "execvp", "execvpe", "posix_spawn", "popen", "system"},
    "shutil": {"which"},
    "subprocess": {"run", "Popen", "call", "check_call", "check_output"},
}
"""Modules and their functions whose first argument leads to a program."""

_ITSELF: Final = "csi_driver/devices/commands.py"
"""Runs what its callers name."""

_ELSEWHERE: Final = (
    "csi_driver/doctor/",
    "csi_driver/plugin/",
    "csi_driver/testing/",
)
"""The doctor looks whether programs are there that others start; kubectl's plugin is
on workstations, fakes are in tests."""

INTERPRETER: Final = "sys.executable"
"""Stands for the interpreter that runs the driver."""


class UnclearCallError(Exception):
    """A call whose program cannot be told; the message says where it is."""


def programs() -> frozenset[str]:
    """Return the names of all programs that the driver starts."""
    found: set[str] = set()
    for path in sorted(_ROOT.rglob("*.py")):
        name = str(path.relative_to(_ROOT.parent))
        if name != _ITSELF and not name.startswith(_ELSEWHERE):
            found |= _of_module(name, ast.parse(path.read_text(encoding="utf-8")))
    return frozenset(found)


def _of_module(name: str, tree: ast.Module) -> set[str]:
    found: set[str] = set()
    for scope in _scopes(tree):
        reader = _Reader(name, tree, scope)
        for call in _own_calls(scope):
            if _starts_a_program(call):
                found |= reader.program(call.args[0])
    return found


type _Scope = ast.Module | ast.FunctionDef


def _scopes(tree: ast.Module) -> Iterator[_Scope]:
    yield tree
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            yield node


def _own_nodes(scope: _Scope) -> Iterator[ast.AST]:
    """Yield the nodes of a scope, without those of functions inside it."""
    waiting: list[ast.AST] = list(ast.iter_child_nodes(scope))
    while waiting:
        node = waiting.pop()
        yield node
        if not isinstance(node, ast.FunctionDef):
            waiting.extend(ast.iter_child_nodes(node))


def _own_calls(scope: _Scope) -> Iterator[ast.Call]:
    return (node for node in _own_nodes(scope) if isinstance(node, ast.Call))


def _starts_a_program(call: ast.Call) -> bool:
    match call.func:
        case ast.Attribute(value=ast.Name(id=module), attr=function):
            return function in _RUNNERS.get(module, ())
    return False


@dataclass(frozen=True, slots=True)
class _Reader:
    """Follows expressions of one scope."""

    file: str
    tree: ast.Module
    scope: _Scope

    def program(self, node: ast.expr) -> set[str]:
        """Return what programs an expression can name, alone or as the first word."""
        match node:
            case ast.Constant(value=str(text)):
                found = {text}
            case ast.List(elts=[inner, *_]) | ast.Tuple(elts=[inner, *_]):
                found = self.program(inner)
            case ast.Starred(value=inner) | ast.BinOp(left=inner, op=ast.Add()):
                found = self.program(inner)
            case ast.IfExp(body=one, orelse=other):
                found = self.program(one) | self.program(other)
            case ast.Name(id=name):
                found = self._of_name(node, name)
            case ast.Attribute(value=ast.Name(id=module), attr=name):
                found = {self._constant(node, module, name)}
            case ast.Call() if _starts_a_program(node):  # commands.find
                found = self.program(node.args[0])
            case ast.Call():
                found = self._of_function(node)
            case _:
                raise self._unclear(node)
        return found

    def _of_name(self, node: ast.expr, name: str) -> set[str]:
        for scope in (self.scope, self.tree):
            values = list(_values(scope, name))
            if values:
                return {found for value in values for found in self.program(value)}
        raise self._unclear(node)

    def _constant(self, node: ast.expr, module: str, name: str) -> str:
        """Look up a constant of another module of the driver."""
        if f"{module}.{name}" == INTERPRETER:
            return INTERPRETER
        for statement in ast.walk(self.tree):
            if isinstance(statement, ast.ImportFrom):
                for alias in statement.names:
                    if (alias.asname or alias.name) == module:
                        path = f"{statement.module}.{alias.name}"
                        value = getattr(importlib.import_module(path), name)
                        assert isinstance(value, str), (path, name)
                        return value
        raise self._unclear(node)

    def _of_function(self, node: ast.Call) -> set[str]:
        """Follow what a function of the driver returns."""
        match node.func:
            case ast.Name(id=name):
                file, tree = self.file, self.tree
            case ast.Attribute(value=ast.Name(id=module), attr=name):
                file, tree = self._module(node, module)
            case _:
                raise self._unclear(node)
        found: set[str] = set()
        for scope in _scopes(tree):
            if isinstance(scope, ast.FunctionDef) and scope.name == name:
                reader = _Reader(file, tree, scope)
                for statement in _own_nodes(scope):
                    if isinstance(statement, ast.Return) and statement.value:
                        found |= reader.program(statement.value)
        if not found:
            raise self._unclear(node)
        return found

    def _module(self, node: ast.expr, name: str) -> tuple[str, ast.Module]:
        for statement in self.tree.body:
            if isinstance(statement, ast.ImportFrom):
                for alias in statement.names:
                    if alias.name == name and statement.module:
                        path = Path(*statement.module.split("."), f"{name}.py")
                        text = (_ROOT.parent / path).read_text(encoding="utf-8")
                        return str(path), ast.parse(text)
        raise self._unclear(node)

    def _unclear(self, node: ast.expr) -> UnclearCallError:
        return UnclearCallError(
            f"{self.file}:{node.lineno}: which program is {ast.unparse(node)}?"
        )


def _values(scope: _Scope, name: str) -> Iterator[ast.expr]:
    """Yield what is assigned to a name in a scope."""
    for node in _own_nodes(scope):
        match node:
            case ast.Assign(targets=[ast.Name(id=target)], value=value):
                if target == name:
                    yield value
            case ast.AnnAssign(target=ast.Name(id=target), value=ast.expr() as value):
                if target == name:
                    yield value
            # The first of several takes the program's name.
            case ast.Assign(
                targets=[ast.Tuple(elts=[ast.Name(id=target), *_])], value=value
            ):
                if target == name:
                    yield value
            case ast.For(target=ast.Name(id=target), iter=ast.Tuple(elts=values)):
                if target == name:
                    yield from values
