# SPDX-License-Identifier: Apache-2.0
"""The walls of the house, read from every import, those inside functions included."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ('smoothdino_model', 'smoothdino_ros', 'training', 'benchmarks')
LONGEST_FILE = 350  # lines: what can be read at one sitting
MODEL, ROS = 'smoothdino_model', 'smoothdino_ros'
LEAVES = {f'{MODEL}.whole_files', f'{MODEL}.one_line'}
# What a part of the house may import of ours, besides itself: the longest name that fits counts.
MAY_IMPORT = {
    f'{MODEL}.network': set(),
    f'{MODEL}.weights': {f'{MODEL}.network', *LEAVES},
    f'{MODEL}.engines': {f'{MODEL}.network', *LEAVES},
    f'{MODEL}.recordings': {*LEAVES},
    f'{MODEL}.room': {f'{MODEL}.recordings.frames'},
    f'{MODEL}.whole_files': set(),
    f'{MODEL}.one_line': set(),
    f'{MODEL}.metrics': set(),
    f'{MODEL}.pipeline': {f'{MODEL}.{one}' for one in ('network', 'weights', 'engines')},
    f'{MODEL}.depth_bag': {f'{MODEL}.pipeline', f'{MODEL}.recordings', *LEAVES},
    f'{MODEL}.cli': {MODEL},
    f'{MODEL}.__main__': {f'{MODEL}.cli'},
    MODEL: set(),
    ROS: {MODEL},
    f'{ROS}.demo': {MODEL, ROS},
    'training': {MODEL},
    'benchmarks': {MODEL, ROS, 'training'},
}
BEHIND_A_DOOR = (f'{MODEL}.cli', f'{ROS}.demo')  # imported by those that are named above alone


def sources() -> Iterator[tuple[str, Path]]:
    """Module names and files of the packages."""
    for package in PACKAGES:
        for file in sorted((ROOT / package).rglob('*.py')):
            parts = file.relative_to(ROOT).with_suffix('').parts
            yield '.'.join(parts[:-1] if parts[-1] == '__init__' else parts), file


MODULES = dict(sources())


def imports(module: str, *, at_start: bool = False) -> Iterator[tuple[int, str]]:
    """Line and name of every module of ours that is imported; at_start: while it is loaded."""
    tree = ast.parse(MODULES[module].read_text(encoding='utf-8'))
    nodes = list(ast.walk(tree))
    if at_start:  # not those of functions, nor those for type checkers alone
        nodes = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
    for node in nodes:
        if isinstance(node, ast.Import):
            found = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f'{MODULES[module]}:{node.lineno}: expected an absolute import'
            inner = [f'{node.module}.{alias.name}' for alias in node.names]
            found = [name if name in MODULES else str(node.module) for name in inner]
        else:
            continue
        for name in set(found):
            if name.partition('.')[0] in PACKAGES:
                yield node.lineno, name


def within(name: str, place: str) -> bool:
    return name == place or name.startswith(f'{place}.')


def part_of(module: str) -> str:
    return max((place for place in MAY_IMPORT if within(module, place)), key=len)


@pytest.mark.parametrize('module', MODULES)
def test_a_module_imports_only_what_its_part_may(module):
    part = part_of(module)
    for line, name in imports(module):
        allowed = within(name, part) or any(within(name, place) for place in MAY_IMPORT[part])
        for door in BEHIND_A_DOOR:
            named = any(within(place, door) for place in MAY_IMPORT[part])
            allowed &= (
                not within(name, door) or within(module, door) or named or (part == 'benchmarks')
            )
        assert allowed, (
            f'{MODULES[module].relative_to(ROOT)}:{line}: {part} may import '
            f'{sorted(MAY_IMPORT[part]) or "nothing of ours"}, not {name}'
        )


def test_nothing_is_imported_in_a_circle():
    edges = {m: {name for _, name in imports(m, at_start=True)} - {m} for m in MODULES}
    done: set[str] = set()

    def visit(module: str, path: tuple[str, ...]) -> None:
        assert module not in path, ' -> '.join((*path[path.index(module) :], module))
        if module not in done:
            for name in edges.get(module, ()):
                visit(name, (*path, module))
            done.add(module)

    for module in MODULES:
        visit(module, ())


def test_every_file_can_be_read_at_one_sitting():
    lengths = {file: len(file.read_text().splitlines()) for file in MODULES.values()}
    long = {f'{f.relative_to(ROOT)}: {n}' for f, n in lengths.items() if n > LONGEST_FILE}
    assert not long, f'expected at most {LONGEST_FILE} lines: find the second reason to change'


def test_no_test_imports_from_another_test():
    for file in (ROOT / 'test').rglob('*.py'):
        for node in ast.walk(ast.parse(file.read_text())):
            names = [node.module] if isinstance(node, ast.ImportFrom) else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            for name in names:
                assert not (name or '').startswith(('test_', 'conftest')), f'{file}: {name}'
