# SPDX-License-Identifier: Apache-2.0
"""What Python files import, read from their text without running them."""

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Import:
    file: Path  # relative to the root
    line: int
    name: str  # a.b of `import a.b`, a.b.c of `from a.b import c`, be c a module or not
    on_load: bool  # when the module is loaded, and not when one of its functions is called

    def __str__(self) -> str:
        return f'{self.file}:{self.line}: imports {self.name}'


def imports_of(file: Path, root: Path = ROOT) -> list[Import]:
    """All imports of a file, those of functions and of `if TYPE_CHECKING` among them."""
    given = file.relative_to(root)
    found = []
    for node, on_load in _nodes(ast.parse(file.read_text(), str(file)), on_load=True):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            package = given.parent.parts[: len(given.parent.parts) + 1 - node.level]
            start = '.'.join(package if node.level else ())
            home = '.'.join(part for part in (start, node.module) if part)
            names = [f'{home}.{alias.name}' for alias in node.names]
        else:
            continue
        found += [Import(given, node.lineno, name, on_load) for name in names]
    return found


def _nodes(node: ast.AST, *, on_load: bool) -> Iterator[tuple[ast.AST, bool]]:
    yield node, on_load
    later = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
    for child in ast.iter_child_nodes(node):
        yield from _nodes(child, on_load=on_load and not later)


def module_name(file: Path, root: Path = ROOT) -> str:
    parts = file.relative_to(root).with_suffix('').parts
    return '.'.join(parts[:-1] if parts[-1] == '__init__' else parts)


def is_within(name: str, package: str) -> bool:
    return name == package or name.startswith(f'{package}.')
