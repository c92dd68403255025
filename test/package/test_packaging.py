# SPDX-License-Identifier: Apache-2.0
"""What is installed, what agrees with what, and the walls between the packages."""

import ast
import os
import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
EXECUTABLES = ('smoothdino', 'depth_node', 'sample_camera', 'demo')


def setup_arguments() -> dict:
    """The keywords of setup.py's call that are plain values."""
    tree = ast.parse((ROOT / 'setup.py').read_text())
    call = next(
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and getattr(node.func, 'id', '') == 'setup'
    )
    arguments = {}
    for keyword in call.keywords:
        try:
            arguments[keyword.arg] = ast.literal_eval(keyword.value)
        except ValueError:
            continue  # composed of other names
    return arguments


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


def test_no_module_of_the_model_package_knows_ros_or_training():
    loaded = loaded_by(modules('smoothdino_model'))
    assert 'torch' in loaded
    assert not loaded & {'rclpy', 'sensor_msgs', 'lightning', 'smoothdino_ros', 'training'}


def test_the_ros_package_does_not_know_training():
    pytest.importorskip('rclpy', reason='ROS 2 is not installed')
    loaded = loaded_by(modules('smoothdino_ros'))
    assert 'rclpy' in loaded
    assert not loaded & {'training', 'lightning'}


def test_training_does_not_know_the_ros_package():
    assert not loaded_by(modules('training')) & {'rclpy', 'smoothdino_ros'}


def test_package_xml_and_setup_py_agree():
    package = ElementTree.parse(ROOT / 'package.xml').getroot()
    arguments = setup_arguments()
    for tag in ('license', 'description'):
        assert package.findtext(tag) == arguments[tag]
    assert package.findtext('name') == 'smoothdino_ros'
    assert package.findtext('export/build_type') == 'ament_python'


# What each module that is imported from elsewhere comes in, as rosdep calls it.
DEPENDS = {
    'builtin_interfaces': 'builtin_interfaces',
    'cv2': 'python3-opencv',
    'cv_bridge': 'cv_bridge',
    'diagnostic_msgs': 'diagnostic_msgs',
    'huggingface_hub': 'python3-huggingface-hub-pip',
    'launch': 'launch',
    'launch_ros': 'launch_ros',
    'lifecycle_msgs': 'lifecycle_msgs',
    'numpy': 'python3-numpy',
    'rcl_interfaces': 'rcl_interfaces',
    'rclpy': 'rclpy',
    'rosbags': 'python3-rosbags-pip',
    'sensor_msgs': 'sensor_msgs',
    'std_msgs': 'std_msgs',
    'std_srvs': 'std_srvs',
    'torch': 'python3-torch',
    'tqdm': 'python3-tqdm',
    'transformers': 'python3-transformers-pip',
}
# With transformers comes safetensors; the others are extras (setup.py), or of the clone alone.
UNDECLARED = {'safetensors', 'onnx', 'onnxruntime', 'onnxscript', 'rerun'}


def test_package_xml_declares_what_is_imported():
    package = ElementTree.parse(ROOT / 'package.xml').getroot()
    declared = {one.text for one in package.findall('exec_depend')}
    files = [*(ROOT / 'launch').glob('*.py')]
    for name in ('smoothdino_model', 'smoothdino_ros'):
        files += (ROOT / name).rglob('*.py')
    for file in files:
        for node in ast.walk(ast.parse(file.read_text())):
            names = [node.module or ''] if isinstance(node, ast.ImportFrom) else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            for name in {name.partition('.')[0] for name in names}:
                if name in sys.stdlib_module_names or name.startswith('smoothdino_'):
                    continue
                assert name in UNDECLARED or DEPENDS.get(name) in declared, f'{file}: {name}'


def test_setup_py_pins_nothing_and_the_constraints_pin_everything():
    requirements = setup_arguments()['install_requires']
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
