# SPDX-License-Identifier: Apache-2.0
"""The ament_python package: installed by colcon on a robot, by `pip install -e .` in a clone.

pip puts `smoothdino` on the PATH of its environment. colcon keeps executables in
lib/smoothdino_ros, as ROS 2 wants it: `ros2 run smoothdino_ros smoothdino`.
"""

import xml.etree.ElementTree as ElementTree
from glob import glob
from pathlib import Path

from setuptools import find_packages, setup

PACKAGE = 'smoothdino_ros'
# Where bloom raises it.
VERSION = ElementTree.parse(Path(__file__).parent / 'package.xml').findtext('version')

setup(
    name=PACKAGE,
    version=VERSION,
    description='Steady metric depth from a camera: DINOv2 with a temporal adapter, in ROS 2',
    license='Apache-2.0',
    maintainer='smoothdino_ros maintainers',
    maintainer_email='maintainers@users.noreply.github.com',
    python_requires='>=3.10',
    packages=find_packages(include=['smoothdino_model*', f'{PACKAGE}*']),
    package_data={'smoothdino_model': ['assets/*/*', '*.pyi']},
    data_files=[
        ('share/ament_index/resource_index/packages', [f'resource/{PACKAGE}']),
        (f'share/{PACKAGE}', ['package.xml']),
        (f'share/{PACKAGE}/launch', sorted(glob('launch/*.launch.py'))),
        (f'share/{PACKAGE}/config', sorted(glob('config/*'))),
    ],
    install_requires=[
        'numpy>=1.23',
        'opencv-python>=4.8',
        'rosbags>=0.10',
        'safetensors>=0.4',
        'setuptools',
        'torch>=2.4',
        'tqdm>=4.60',
        'transformers>=4.48',
    ],
    extras_require={
        'onnx': ['onnx', 'onnxruntime', 'onnxscript'],
        'viewer': ['rerun-sdk>=0.23'],
    },
    tests_require=['pytest'],  # by which `colcon test` knows what to run
    zip_safe=False,
    entry_points={
        'console_scripts': [
            'smoothdino = smoothdino_model.cli.main:main',
            'depth_node = smoothdino_ros.depth_node:main',
            'sample_camera = smoothdino_ros.demo.sample_camera:main',
            'demo = smoothdino_ros.demo.demo:main',
        ],
    },
)
