# SPDX-License-Identifier: Apache-2.0
"""The walls of the house: who may import whom, in no circle, and no file too long to read."""

from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

from support.imports import ROOT, Import, imports_of, is_within, module_name

PACKAGES = ('smoothdino_model', 'smoothdino_ros', 'training', 'benchmarks')
MAX_LINES = 350

# The wings, and what each may import of ours beside itself: other wings, or single modules of
# theirs. A module is of the wing with the longest name that its own begins with.
LEAVES = ('smoothdino_model.whole_files', 'smoothdino_model.one_line')
MODEL = (  # and not its command line
    'smoothdino_model',
    'smoothdino_model.bag_anchors',
    'smoothdino_model.camera_frame',
    'smoothdino_model.depth_bag',
    'smoothdino_model.engines',
    'smoothdino_model.metrics',
    'smoothdino_model.network',
    'smoothdino_model.pipeline',
    'smoothdino_model.recordings',
    'smoothdino_model.room',
    'smoothdino_model.scale',
    'smoothdino_model.weights',
    *LEAVES,
)
MAY_IMPORT = {
    **dict.fromkeys(LEAVES, ()),
    'smoothdino_model.network': (),
    'smoothdino_model.weights': ('smoothdino_model.network', *LEAVES),
    'smoothdino_model.engines': ('smoothdino_model.network', *LEAVES),
    'smoothdino_model.recordings': LEAVES,
    'smoothdino_model.room': ('smoothdino_model.recordings.frames',),
    'smoothdino_model.scale': ('smoothdino_model.recordings.frames',),
    'smoothdino_model.metrics': (),
    'smoothdino_model.camera_frame': ('smoothdino_model.scale',),
    'smoothdino_model.pipeline': (
        'smoothdino_model.camera_frame',
        'smoothdino_model.network',
        'smoothdino_model.weights',
        'smoothdino_model.engines',
        'smoothdino_model.scale',
    ),
    'smoothdino_model.bag_anchors': (
        'smoothdino_model.camera_frame',
        'smoothdino_model.recordings',
        'smoothdino_model.scale',
    ),
    'smoothdino_model.depth_bag': (
        'smoothdino_model.bag_anchors',
        'smoothdino_model.camera_frame',
        'smoothdino_model.pipeline',
        'smoothdino_model.recordings',
        *LEAVES,
    ),
    'smoothdino_model': (),  # its public names are found by __init__.pyi
    'smoothdino_model.cli': MODEL,
    'smoothdino_model.__main__': ('smoothdino_model.cli', 'smoothdino_model.engines.process'),
    'smoothdino_ros': MODEL,
    'smoothdino_ros.demo': (*MODEL, 'smoothdino_ros'),
    'training': MODEL,
    'benchmarks': (*MODEL, 'smoothdino_ros', 'smoothdino_ros.demo', 'training'),
}
# Packages of others that not every wing may know.
ONLY_FOR = {
    'rclpy': ('smoothdino_ros', 'smoothdino_ros.demo', 'benchmarks'),
    'sensor_msgs': ('smoothdino_ros', 'smoothdino_ros.demo', 'benchmarks'),
    'lightning': ('training',),
    'rosbags': ('smoothdino_model.recordings', 'smoothdino_model.depth_bag'),
    'onnxruntime': ('smoothdino_model.engines', 'benchmarks'),
}


def wing_of(module: str) -> str:
    return max((wing for wing in MAY_IMPORT if is_within(module, wing)), key=len)


def files(root: Path, folders: tuple[str, ...]) -> list[Path]:
    return sorted(file for folder in folders for file in (root / folder).rglob('*.py'))


def house(root: Path) -> dict[str, list[Import]]:
    """The imports of each module of the packages."""
    return {module_name(file, root): imports_of(file, root) for file in files(root, PACKAGES)}


def imported_module(name: str, modules: dict) -> str:
    """Of `from a.b import c` either a.b.c or a.b."""
    return name if name in modules else name.rpartition('.')[0]


def faults(root: Path) -> list[str]:
    """Imports through a wall, each with file, line and the rule."""
    found = []
    for module, imports in house(root).items():
        wing = wing_of(module)
        for one in imports:
            top = one.name.partition('.')[0]
            if wing not in ONLY_FOR.get(top, (wing,)):
                found.append(f'{one}, which is only for {", ".join(ONLY_FOR[top])}')
            if top not in PACKAGES:
                continue
            allowed = {wing, *MAY_IMPORT[wing]}
            single = allowed - MAY_IMPORT.keys()
            if wing_of(one.name) not in allowed and not any(
                is_within(one.name, m) for m in single
            ):
                may = ', '.join(MAY_IMPORT[wing]) or 'nothing of ours'
                found.append(f'{one}, but {wing} may import {may} beside itself')
    return found


def circle(root: Path) -> list[str]:
    """The modules of a circle of imports on load, the first of them again at the end."""
    modules = house(root)
    needs = {
        module: {imported_module(one.name, modules) for one in imports if one.on_load}
        & (modules.keys() - {module})
        for module, imports in modules.items()
    }
    try:
        TopologicalSorter(needs).prepare()
    except CycleError as error:
        return error.args[1]
    return []


def test_each_wing_imports_what_it_may_and_nothing_else():
    found = faults(ROOT)
    assert not found, '\n'.join(found)


def test_the_network_stands_on_torch_and_transformers_alone():
    allowed = {'torch', 'transformers', 'smoothdino_model'}
    standard = {'__future__', 'collections', 'contextlib', 'dataclasses', 'functools', 'math'}
    standard |= {'typing'}
    found = [
        f'{one}: the network imports only {sorted(allowed | standard)}'
        for file in files(ROOT, ('smoothdino_model/network',))
        for one in imports_of(file)
        if one.name.partition('.')[0] not in allowed | standard
    ]
    assert not found, '\n'.join(found)


def test_no_modules_import_each_other_in_a_circle():
    found = circle(ROOT)
    assert not found, ' → '.join(found)


def test_no_source_is_longer_than_one_reads_at_a_time():
    found = [
        f'{file.relative_to(ROOT)}: {count} lines, at most {MAX_LINES}'
        for file in files(ROOT, (*PACKAGES, 'launch', 'notebooks', 'test'))
        if (count := len(file.read_text().splitlines())) > MAX_LINES
    ]
    assert not found, '\n'.join(found)


def test_every_rule_names_what_there_is():
    modules = house(ROOT)
    for name in (*MAY_IMPORT, *(one for may in MAY_IMPORT.values() for one in may)):
        assert name in modules or any(is_within(module, name) for module in modules), name
    known = {one.name.partition('.')[0] for imports in modules.values() for one in imports}
    assert set(ONLY_FOR) <= known


def test_no_test_imports_another_one():
    found = [
        f'{one}: what several tests need is in test/support or a fixture of a conftest.py'
        for file in files(ROOT, ('test',))
        for one in imports_of(file)
        if {'test', 'conftest'} & set(one.name.split('.'))
        or any(part.startswith('test_') for part in one.name.split('.')[:-1])
    ]
    assert not found, '\n'.join(found)


@pytest.mark.parametrize(
    ('file', 'text', 'said'),
    [
        ('smoothdino_model/network/a.py', 'import smoothdino_model.weights', 'a.py:1: imports'),
        ('smoothdino_model/network/a.py', 'def f():\n    from ..room import b', 'a.py:2: imports'),
        ('smoothdino_model/room/b.py', 'from smoothdino_model.recordings import open', 'open'),
        ('smoothdino_model/room/b.py', 'from smoothdino_model import DepthPipeline', 'Pipeline'),
        ('smoothdino_model/pipeline.py', 'from smoothdino_model.cli import main', 'cli.main'),
        ('smoothdino_ros/node.py', 'from smoothdino_ros.demo import viewer', 'demo.viewer'),
        ('smoothdino_ros/node.py', 'def f():\n    import training.module', 'training.module'),
        ('training/a.py', 'import smoothdino_ros', 'imports smoothdino_ros'),
        ('training/a.py', 'def f():\n    import rclpy.node', 'only for smoothdino_ros'),
    ],
)
def test_a_hole_in_a_wall_is_found_and_named(tmp_path, file, text, said):
    for name in ('recordings/frames', 'recordings/open', 'room/b', 'cli/main', 'weights/hub'):
        (tmp_path / 'smoothdino_model' / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / 'smoothdino_model' / f'{name}.py').write_text('import torch\n')
    (tmp_path / 'smoothdino_ros' / 'demo').mkdir(parents=True)
    (tmp_path / 'smoothdino_ros' / 'demo' / 'viewer.py').write_text('import smoothdino_model\n')
    (tmp_path / 'smoothdino_model' / 'network').mkdir()
    (tmp_path / 'training').mkdir()
    room = 'from smoothdino_model.recordings.frames import Frame\n'
    (tmp_path / 'smoothdino_model' / 'room' / 'b.py').write_text(room)
    assert not faults(tmp_path)
    (tmp_path / file).write_text(text)
    (found,) = faults(tmp_path)
    assert said in found


def test_a_circle_is_found_and_one_of_functions_is_none(tmp_path):
    folder = tmp_path / 'training'
    folder.mkdir()
    (folder / 'a.py').write_text('from training.b import x')
    (folder / 'b.py').write_text('def f():\n    from training import c')
    (folder / 'c.py').write_text('import training.a')
    assert not circle(tmp_path)
    (folder / 'b.py').write_text('class B:\n    from training import c')
    assert set(circle(tmp_path)) == {'training.a', 'training.b', 'training.c'}
