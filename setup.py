# SPDX-License-Identifier: Apache-2.0
"""The ament_python package: installed by colcon on a robot, by `pip install -e .` in a clone.

pip puts `smoothdino` on the PATH of its environment. colcon keeps executables in
lib/smoothdino_ros, as ROS 2 wants it: `ros2 run smoothdino_ros smoothdino`. Version, description,
licence and maintainer are those of package.xml, where bloom and rosdep read them.
"""

import xml.etree.ElementTree as ElementTree
from glob import glob
from pathlib import Path

from setuptools import find_packages, setup

MANIFEST = ElementTree.parse(Path(__file__).resolve().with_name('package.xml')).getroot()
PACKAGE = MANIFEST.findtext('name')

setup(
    name=PACKAGE,
    version=MANIFEST.findtext('version'),
    description=MANIFEST.findtext('description'),
    license=MANIFEST.findtext('license'),
    maintainer=MANIFEST.findtext('maintainer'),
    maintainer_email=MANIFEST.find('maintainer').get('email'),
    python_requires='>=3.10',
    packages=find_packages(include=['smoothdino_model*', f'{PACKAGE}*']),
    package_data={'smoothdino_model': ['*.pyi', 'assets/*/*']},
    data_files=[
        ('share/ament_index/resource_index/packages', [f'resource/{PACKAGE}']),
        (f'share/{PACKAGE}', ['package.xml']),
        (f'share/{PACKAGE}/launch', sorted(glob('launch/*.launch.py'))),
        (f'share/{PACKAGE}/config', sorted(glob('config/*'))),
    ],
    install_requires=[
        'huggingface-hub>=0.26',
        'numpy>=1.21',
        'opencv-python>=4.5.4',
        'pyyaml',
        'rosbags>=0.11.9',
        'safetensors>=0.4',
        'setuptools',
        'torch>=2.4',
        'tqdm>=4.60',
        'transformers>=4.48',
    ],
    extras_require={
        'onnx': ['onnx', 'onnxruntime', 'onnxscript'],
        'openvino': ['openvino'],
        'test': ['pytest'],  # by which colcon knows what tests the package
        'viewer': ['rerun-sdk>=0.23'],
    },
    zip_safe=False,
    entry_points={
        'console_scripts': [
            'smoothdino = smoothdino_model.__main__:main',
            'depth_node = smoothdino_ros.start:main',
            'sample_camera = smoothdino_ros.demo.sample_camera:main',
            'demo = smoothdino_ros.demo.demo:main',
        ],
    },
)
