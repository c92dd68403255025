# SPDX-License-Identifier: Apache-2.0
"""What is imported is declared: to rosdep in package.xml, to pip in setup.py and requirements."""

import re
import sys
import xml.etree.ElementTree as ElementTree

import pytest

from support.imports import ROOT, imports_of
from support.setup_metadata import setup_metadata

OURS = {'smoothdino_model', 'smoothdino_ros', 'training', 'benchmarks', 'support', 'launch'}
INSTALLED = ('smoothdino_model', 'smoothdino_ros', 'launch')
# Packages of ROS 2 have the key of their own name; these are Python's, in rosdep and in pip.
ROSDEP = {
    'backports': 'python3-rosbags-pip',  # which brings it along
    'cv2': 'python3-opencv',
    'huggingface_hub': 'python3-huggingface-hub-pip',
    'hypothesis': 'python3-hypothesis',
    'lz4': 'python3-rosbags-pip',  # as above
    'numpy': 'python3-numpy',
    'pytest': 'python3-pytest',
    'rosbags': 'python3-rosbags-pip',
    'safetensors': 'python3-transformers-pip',  # which brings it along
    'torch': 'python3-torch',
    'tqdm': 'python3-tqdm',
    'transformers': 'python3-transformers-pip',
    'yaml': 'python3-yaml',
}
PIP = {
    'backports': 'rosbags',  # which brings it along
    'cv2': 'opencv-python',
    'huggingface_hub': 'huggingface-hub',
    'lz4': 'rosbags',  # as above
    'mcap': 'mcap-ros2-support',  # which brings it along
    'mcap_ros2': 'mcap-ros2-support',
    'rerun': 'rerun-sdk',
    'yaml': 'pyyaml',
}
ROS = {
    'builtin_interfaces',
    'cv_bridge',
    'diagnostic_msgs',
    'geometry_msgs',
    'launch',
    'launch_ros',
    'launch_testing',
    'lifecycle_msgs',
    'nav_msgs',
    'rcl_interfaces',
    'rclpy',
    'rosgraph_msgs',
    'sensor_msgs',
    'std_msgs',
    'std_srvs',
    'tf2_msgs',
}
LATER = {'compression'}  # in Python 3.14's own library
# What nothing imports: `ros2 bag` with files of MCAP, and an option of pytest in pyproject.toml.
STARTED = {'rosbag2', 'rosbag2_storage_mcap', 'python3-pytest-timeout'}


def imported(*folders: str) -> set[str]:
    """The packages of others that the files of these folders import, anywhere in them."""
    names = {
        one.name.partition('.')[0]
        for folder in folders
        for file in (ROOT / folder).rglob('*.py')
        for one in imports_of(file)
    }
    # The launch files import the package of that name, and nobody their folder.
    return names - sys.stdlib_module_names - LATER - (OURS - {'launch'})


def declared(tag: str) -> set[str]:
    manifest = ElementTree.parse(ROOT / 'package.xml')
    return {element.text for element in manifest.findall(tag)}


def requirements(*lines: str) -> set[str]:
    """The names of pip's requirements, in its canonical spelling."""
    named = [re.match(r'[A-Za-z0-9._-]+', line) for line in lines if line and line[0] not in '#-']
    return {re.sub('[-_.]+', '-', match[0]).lower() for match in named if match}


def required(name: str) -> set[str]:
    return requirements(*(ROOT / f'requirements{name}.txt').read_text().splitlines())


def by_pip(names: set[str]) -> set[str]:
    return {PIP.get(name, name) for name in names - ROS}


def optional() -> set[str]:
    extras = setup_metadata()['extras_require']
    return requirements(*extras['onnx'], *extras['openvino'], *extras['viewer'])


def test_package_xml_declares_what_is_installed_and_nothing_else():
    names = {name for name in imported(*INSTALLED) if not by_pip({name}) & optional()}
    assert names <= ROS | ROSDEP.keys(), 'add the rosdep key to the table above'
    keys = {ROSDEP.get(name, name) for name in names}
    assert declared('exec_depend') - STARTED == keys


def test_package_xml_declares_what_the_tests_import_where_rosdep_has_it():
    names = imported('test', 'training', 'benchmarks')
    keys = {ROSDEP.get(name, name) for name in names & (ROS | ROSDEP.keys())}
    assert declared('test_depend') - STARTED == keys - declared('exec_depend')


def test_pip_brings_what_is_imported():
    with_setup = requirements(*setup_metadata()['install_requires'])
    assert by_pip(imported(*INSTALLED)) - {'cv-bridge'} <= with_setup | optional()
    files = required('') | required('-ros') | required('-dev')
    everything = imported(*INSTALLED, 'test', 'training', 'benchmarks', 'notebooks')
    # A viewer, and an engine with its tool for eight bits, that only some want.
    assert by_pip(everything) <= files | {'rerun-sdk', 'openvino', 'nncf'}
    assert with_setup - {'setuptools'} <= files


def test_colcon_knows_that_pytest_tests_the_package():
    assert 'pytest' in setup_metadata()['extras_require']['test']


@pytest.mark.parametrize('tag', ['name', 'version', 'description', 'license'])
def test_setup_py_says_what_package_xml_says(tag):
    manifest = ElementTree.parse(ROOT / 'package.xml')
    assert setup_metadata()[tag] == manifest.findtext(tag)
