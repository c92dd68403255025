# SPDX-License-Identifier: Apache-2.0
"""Parameters: checked, explained, and the same in config/depth.yaml."""

import dataclasses
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

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
        ('threads', -1),
        ('threads', 257),
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
        ('max_rate_hz', 2000.0),
        ('max_depth_m', 2000.0),
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
        ('scale_anchor', 'sky'),
        ('scale_anchor', ''),
        ('scale_anchor', 'floor+floor'),
        ('scale_anchor', 'floor+none'),
        ('scan_pose', '1 2 3'),
        ('range_pose', '0 0 0 0 0 nan'),
        ('points_pose', 'a b c d e f'),
        ('odometry_pose', '1'),
        ('imu_pose', '0 0'),
        ('tilt_by_imu', 1),
        ('camera_height_m', 0.001),
        ('camera_height_m', float('nan')),
        ('camera_pitch_deg', 91.0),
        ('camera_roll_deg', -91.0),
        ('scale_min', 0.0),
        ('scale_min', 1.5),
        ('scale_max', 0.9),
        ('scale_warn', 1.0),
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


def test_a_floor_needs_the_height_of_the_camera_over_it():
    with pytest.raises(ValueError, match=r'camera_height_m: expected .*lens.*floor.*, got 0'):
        from_values(DEFAULTS | {'scale_anchor': 'floor'})
    assert from_values(DEFAULTS | {'scale_anchor': 'floor', 'camera_height_m': 1}).anchors == (
        'floor',
    )
    assert not NodeParameters().anchors
    by_tf = {'scale_anchor': 'floor', 'base_frame': 'base_footprint'}
    assert from_values(DEFAULTS | by_tf).camera_height_m == 0
    by_imu = {'scale_anchor': 'floor', 'tilt_by_imu': True}
    with pytest.raises(ValueError, match=r'camera_height_m: expected .*, got 0'):
        from_values(DEFAULTS | by_imu)
    with pytest.raises(ValueError, match=r'tilt_by_imu: expected false where base_frame is given'):
        from_values(DEFAULTS | by_imu | by_tf)
    assert from_values(DEFAULTS | by_imu | {'camera_height_m': 1}).mounting.tilt_by_imu


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
        *('camera_height_m', 'camera_pitch_deg', 'camera_roll_deg'),
        *('scale_min', 'scale_max', 'scale_warn', 'scan_pose', 'range_pose', 'points_pose'),
        *('base_frame', 'imu_pose', 'odometry_pose'),
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


@pytest.fixture
def started():
    """Make a node that was started with these settings, as users give them."""
    rclpy = pytest.importorskip('rclpy', reason='needs ROS 2 (rclpy)')
    contexts = []

    def start(*settings: str):
        contexts.append(context := rclpy.Context())
        arguments = [word for one in settings for word in ('-p', one)]
        rclpy.init(args=['--ros-args', *arguments], context=context)
        node = rclpy.create_node('declares', context=context)
        declared_parameters().declare(node)
        return node

    yield start
    for context in contexts:
        rclpy.shutdown(context=context)


def declared_parameters():
    from smoothdino_ros import declared_parameters

    return declared_parameters


def test_declared_with_description_type_and_range(started):
    node = started('max_depth_m:=20', 'cameras:=[front]', 'publish_color:=false')
    read = declared_parameters().read(node)
    assert (read.max_depth_m, read.cameras, read.publish_color) == (20.0, ('front',), False)
    words = {bool: 'BOOL', int: 'INTEGER', float: 'DOUBLE', str: 'STRING', tuple: 'STRING_ARRAY'}
    for name, default in DEFAULTS.items():
        one = node.describe_parameter(name)
        wanted = node.get_parameter(name).type_
        assert (wanted.name, one.type) == (words[type(default)], wanted.value)
        assert not one.dynamic_typing
        assert len(one.description) > 20
        ranges = [*one.integer_range, *one.floating_point_range]
        assert len(ranges) == (type(default) in (int, float)), name
        assert all(r.from_value <= default <= r.to_value for r in ranges)
    (stride,) = node.describe_parameter('points_stride').integer_range
    assert (stride.from_value, stride.to_value, stride.step) == (1, 64, 1)
    (period_s,) = node.describe_parameter('diagnostics_period_s').floating_point_range
    assert (period_s.from_value, period_s.to_value) == (0.1, 60.0)


def test_the_list_of_cameras_is_one_of_texts_when_it_is_empty(started):
    node = started()
    assert node.get_parameter('cameras').type_.name == 'STRING_ARRAY'
    assert declared_parameters().read(node) == NodeParameters()


def test_what_is_wrong_from_the_start_is_kept_and_held_to_its_type_when_put_right(started):
    node = started('points_stride:=2.5', 'max_gap_s:=-1.0', 'cameras:=front')
    parameters = declared_parameters()
    for name, got, right in (
        ('points_stride', 2.5, 2),
        ('max_gap_s', -1.0, 2),
        ('cameras', 'front', ['front']),
    ):
        assert node.get_parameter(name).value == got
        with pytest.raises(ValueError, match=r'expected .*, got'):
            parameters.read(node)
        assert f'got {got!r}' in set_parameter(node, name, got)
        assert not set_parameter(node, name, right)
        one = node.describe_parameter(name)
        assert not one.dynamic_typing
        assert one.type == node.get_parameter(name).type_.value
    read = parameters.read(node)
    assert (read.points_stride, read.max_gap_s, read.cameras) == (2, 2.0, ('front',))
    assert not set_parameter(node, 'cameras', [])
    assert node.get_parameter('cameras').type_.name == 'STRING_ARRAY'


def set_parameter(node, name: str, value) -> str:
    """The reason for which a value was refused, else empty."""
    from rclpy.parameter import Parameter

    new = [Parameter(name, value=value)]
    return declared_parameters().set_typed(node, new, node.set_parameters_atomically).reason


def test_settings_that_are_no_parameters_are_named_with_what_is_meant(started):
    node = started(
        *('max_depht_m:=20.0', 'colour:=blue', 'use_sim_time:=false', 'max_depth_m:=5.0'),
        'qos_overrides./imag.subscription.reliability:=reliable',
        'qos_overrides./image.subscription.reliability:=reliable',
    )
    without_effect = declared_parameters().without_effect
    said = without_effect(node, qos=False)
    assert 'max_depht_m (is max_depth_m meant?)' in said
    assert 'colour' in said
    assert said.endswith('.')
    assert not {'use_sim_time', 'qos_overrides'} & set(re.findall(r'[\w.]+', said))
    # What a subscription with QoS overrides declares.
    node.declare_parameter('qos_overrides./image.subscription.reliability', 'best_effort')
    said = without_effect(node, qos=True)
    assert said.count('qos_overrides./imag.') == 1
    assert '(is qos_overrides./image.subscription.reliability meant?)' in said
    assert not without_effect(started('max_depth_m:=5.0'), qos=False)
