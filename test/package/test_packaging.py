# SPDX-License-Identifier: Apache-2.0
"""What is installed, what agrees with what, and the walls between the packages."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from support.setup_metadata import setup_metadata

ROOT = Path(__file__).parents[2]
EXECUTABLES = ('smoothdino', 'depth_node', 'sample_camera', 'demo')


def loaded_by(statement: str) -> set[str]:
    """The top-level packages in memory after the statement, in a fresh interpreter."""
    program = (
        f'import sys\n{statement}\nprint(*{{name.partition(".")[0] for name in sys.modules}})'
    )
    done = subprocess.run(
        [sys.executable, '-c', program], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


def modules(package: str) -> str:
    """An import statement of every module of a package."""
    files = sorted((ROOT / package).rglob('*.py'))
    names = ['.'.join(f.relative_to(ROOT).with_suffix('').parts) for f in files]
    return 'import ' + ', '.join(name for name in names if not name.endswith('__'))


def test_importing_the_model_package_loads_neither_ros_nor_lightning_nor_rosbags():
    loaded = loaded_by('import smoothdino_model')
    assert 'smoothdino_model' in loaded
    assert not loaded & {'rclpy', 'lightning', 'rosbags', 'smoothdino_ros', 'training'}


@pytest.mark.slow
def test_no_module_of_the_model_package_knows_ros_or_training():
    loaded = loaded_by(modules('smoothdino_model'))
    assert 'torch' in loaded
    assert not loaded & {'rclpy', 'sensor_msgs', 'lightning', 'smoothdino_ros', 'training'}


@pytest.mark.slow
def test_the_ros_package_does_not_know_training():
    pytest.importorskip('rclpy', reason='ROS 2 is not installed')
    loaded = loaded_by(modules('smoothdino_ros'))
    assert 'rclpy' in loaded
    assert not loaded & {'training', 'lightning'}


@pytest.mark.slow
def test_training_does_not_know_the_ros_package():
    assert not loaded_by(modules('training')) & {'rclpy', 'smoothdino_ros'}


def test_setup_py_pins_nothing_and_the_constraints_pin_everything():
    requirements = setup_metadata()['install_requires']
    assert not [r for r in requirements if '==' in r or '<' in r]
    pinned = set()
    for line in (ROOT / 'constraints.txt').read_text().splitlines():
        if line and not line.startswith('#'):
            match = re.fullmatch(
                r"([a-z0-9-]+)==[0-9.]+(; python_version [<=>]+ '3\.1[0-9]')?", line
            )
            assert match, line
            pinned.add(match[1])
    for name in ('', '-ros', '-dev'):
        for line in (ROOT / f'requirements{name}.txt').read_text().splitlines():
            if line and line[0] not in '#-':
                assert re.match(r'[A-Za-z0-9-]+', line)[0].lower() in pinned, line
    for requirement in requirements:
        assert re.match(r'[a-z0-9-]+', requirement)[0] in pinned, requirement


def test_every_source_file_names_its_licence():
    for package in ('smoothdino_model', 'smoothdino_ros', 'training', 'launch', 'test'):
        for file in (ROOT / package).rglob('*.py'):
            text = file.read_text()
            assert not text or text.startswith('# SPDX-License-Identifier: Apache-2.0\n'), file
    assert 'Apache License' in (ROOT / 'LICENSE').read_text()[:200]


@pytest.fixture(scope='module')
def installed() -> Path:
    """What colcon built."""
    prefix = os.environ.get('SMOOTHDINO_INSTALL')
    if not prefix:
        pytest.skip('SMOOTHDINO_INSTALL is not set: make test builds with colcon and sets it')
    return Path(prefix)


def test_the_built_tree_holds_what_a_robot_needs(installed):
    for name in EXECUTABLES:
        assert os.access(installed / 'lib/smoothdino_ros' / name, os.X_OK), name
    share = installed / 'share'
    assert (share / 'ament_index/resource_index/packages/smoothdino_ros').is_file()
    assert (share / 'smoothdino_ros/package.xml').is_file()
    for folder in ('launch', 'config'):
        built = {file.name for file in (share / 'smoothdino_ros' / folder).glob('*')}
        assert built == {file.name for file in (ROOT / folder).glob('*.*')}
    assert {'depth.launch.py', 'demo.launch.py'} <= {
        file.name for file in (share / 'smoothdino_ros/launch').iterdir()
    }


def test_the_built_package_runs_without_the_clone(installed, tmp_path):
    (site,) = installed.glob('lib/python3*/site-packages')
    done = subprocess.run(
        [installed / 'lib/smoothdino_ros/smoothdino', 'info'],
        cwd=tmp_path,
        env={**os.environ, 'PYTHONPATH': str(site)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    model = site / 'smoothdino_model'
    sources = {f.relative_to(ROOT) for f in (ROOT / 'smoothdino_model').rglob('*.*')}
    shipped = {f.relative_to(site) for f in model.rglob('*.*')}
    assert {f for f in sources if '__pycache__' not in f.parts} <= shipped
