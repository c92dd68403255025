# SPDX-License-Identifier: Apache-2.0
"""Parameters: checked, explained, and the same in config/depth.yaml."""

import dataclasses
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from smoothdino_ros import parameters
from smoothdino_ros.parameters import NodeParameters, changed, from_values

CONFIG = Path(__file__).parents[2] / 'config' / 'depth.yaml'
DEFAULTS = {f.name: f.default for f in dataclasses.fields(NodeParameters)}


def test_an_integer_will_do_for_a_number_and_nothing_else_is_converted():
    assert from_values(DEFAULTS | {'max_depth_m': 10}).max_depth_m == 10.0
    assert isinstance(from_values(DEFAULTS | {'max_depth_m': 10}).max_depth_m, float)
    for name, value in (('max_depth_m', '10'), ('max_gap_s', True), ('input_height', 480.0)):
        with pytest.raises(ValueError, match=f'Parameter {name}: expected'):
            from_values(DEFAULTS | {name: value})


@pytest.mark.parametrize(
    ('name', 'value'),
    [
        ('model', ' '),
        ('adapter', 3),
        ('engine', 'steam'),
        ('device', ''),
        ('precision', 'int3'),
        ('input_height', -14),
        ('input_height', 10**6),
        ('cameras', ['front', 'front']),
        ('cameras', ['a/b']),
        ('cameras', 'front'),
        ('cameras', [1, 2]),
        ('image_transport', 'theora'),
        ('bit_depth', 7),
        ('bit_depth', 17),
        ('bit_depth', -1),
        ('depth_encoding', '64FC1'),
        ('compressed_depth_format', 'jpeg'),
        ('compressed_depth_png_level', -1),
        ('compressed_depth_png_level', 10),
        ('min_depth_m', -0.1),
        ('min_depth_m', 11.0),
        ('max_depth_m', 0.0),
        ('max_depth_m', float('nan')),
        ('max_depth_m', float('inf')),
        ('max_rate_hz', -1.0),
        ('max_gap_s', 0.0),
        ('max_latency_s', -0.1),
        ('max_latency_s', float('nan')),
        ('unsubscribe_after_s', -1.0),
        ('unsubscribe_after_s', float('inf')),
        ('points_stride', 0),
        ('points_stride', 2.0),
        ('points_max_range_m', -1.0),
        ('points_max_range_m', float('inf')),
        ('points_voxel_m', 0.001),
        ('points_voxel_m', float('nan')),
        ('publish_points', 1),
        ('focal_correction', 'yes'),
        ('max_gap_s', float('nan')),
        ('temporal', 1),
        ('diagnostics_period_s', 0.0),
        ('autostart', 'yes'),
        ('autostart', None),
    ],
)
def test_a_wrong_value_is_named_in_one_sentence(name, value):
    with pytest.raises(ValueError, match=r'expected .*, got .*') as error:
        from_values(DEFAULTS | {name: value})
    sentence = str(error.value)
    assert '\n' not in sentence
    assert sentence.endswith('.')
    blamed = 'max_depth_m' if (name, value) == ('min_depth_m', 11.0) else name
    assert sentence.startswith(f'Parameter {blamed}: ')


def test_16uc1_ends_where_its_millimetres_do():
    from_values(DEFAULTS | {'depth_encoding': '16UC1', 'max_depth_m': 65.5})
    with pytest.raises(ValueError, match=r'65\.535'):
        from_values(DEFAULTS | {'depth_encoding': '16UC1', 'max_depth_m': 66})


@pytest.mark.parametrize('empty', [[], [''], None])
def test_cameras_are_prefixes(empty):
    assert from_values(DEFAULTS | {'cameras': empty}).prefixes == {'': ''}
    two = from_values(DEFAULTS | {'cameras': ['front', 'rear']})
    assert two.prefixes == {'front': 'front/', 'rear': 'rear/'}


def test_changes_while_configured():
    now = from_values(DEFAULTS)
    assert changed(now, {'max_gap_s': 2, 'some.other': 'x'}).max_gap_s == 2.0
    assert changed(now, {'device': 'auto'}) == now  # to what it is already
    with pytest.raises(ValueError, match=r'device is fixed .*, because the network'):
        changed(now, {'device': 'cpu'})
    with pytest.raises(ValueError, match='Parameter max_depth_m: expected more than min_depth_m'):
        changed(now, {'min_depth_m': 12.0})
    assert changed(now, {'min_depth_m': 12.0, 'max_depth_m': 80.0}).min_depth_m == 12.0


def test_what_can_change_while_configured():
    live = {f.name for f in dataclasses.fields(NodeParameters) if not f.metadata['fixed']}
    assert live == {
        *('depth_encoding', 'min_depth_m', 'max_depth_m', 'max_rate_hz', 'max_gap_s'),
        *('focal_correction', 'publish_points', 'points_stride', 'publish_color'),
        *('max_latency_s', 'diagnostics_period_s'),
        *('compressed_depth_format', 'compressed_depth_png_level'),
        *('points_max_range_m', 'points_voxel_m'),
        'unsubscribe_after_s',
    }


def test_the_config_file_holds_every_default():
    (namespace,) = (written := yaml.safe_load(CONFIG.read_text()))
    assert namespace == '/**'
    values = written['/**']['ros__parameters']
    assert from_values(values) == NodeParameters()
    assert set(values) == set(DEFAULTS)


def test_importing_them_loads_no_network():
    code = (
        'import sys, smoothdino_ros.parameters, smoothdino_ros.inference_worker\n'
        "sys.exit(sorted({'torch', 'transformers', 'rclpy'} & set(sys.modules)) or 0)"
    )
    subprocess.run([sys.executable, '-c', code], check=True, cwd=CONFIG.parent.parent)


def test_importing_the_node_loads_no_network():
    pytest.importorskip('rclpy', reason='needs ROS 2 (rclpy)')
    code = (
        'import sys, smoothdino_ros.depth_node\n'
        "sys.exit(sorted({'torch', 'transformers'} & set(sys.modules)) or 0)"
    )
    subprocess.run([sys.executable, '-c', code], check=True, cwd=CONFIG.parent.parent)


def test_declared_with_descriptions_and_open_to_any_type():
    rclpy = pytest.importorskip('rclpy', reason='needs ROS 2 (rclpy)')
    context = rclpy.Context()
    arguments = ['--ros-args', '-p', 'max_depth_m:=20', '-p', 'cameras:=[front]']
    rclpy.init(args=arguments, context=context)
    try:
        node = rclpy.create_node('declares', context=context)
        parameters.declare(node)
        read = parameters.read(node)
        assert (read.max_depth_m, read.cameras) == (20.0, ('front',))
        for name in DEFAULTS:
            descriptor = node.describe_parameter(name)
            assert len(descriptor.description) > 20
            assert descriptor.dynamic_typing
        node.destroy_node()
    finally:
        rclpy.shutdown(context=context)
