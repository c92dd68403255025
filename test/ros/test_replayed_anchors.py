# SPDX-License-Identifier: Apache-2.0
"""A bag with a laser scan, played to the node and given to ``smoothdino infer``: one scale."""

import json

import numpy as np
import pytest

rclpy = pytest.importorskip('rclpy', reason='needs ROS 2 (rclpy)')

from geometry_msgs.msg import Vector3Stamped

from smoothdino_model.cli.main import main
from support.made_recordings import pictures
from support.made_scan_bag import IMAGE, INFO, POSE, SCAN, write_scan_bag
from support.ros_processes import Observer, Process, depth_m, depth_node, stamp_ns

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures('dds')]

POSE_WORDS = ' '.join(map(str, POSE))


def test_node_and_infer_agree_on_depth_and_scale(tmp_path, tiny_model_dir):
    drive, out = write_scan_bag(tmp_path / 'drive', pictures(8), tf=False), tmp_path / 'out'
    words = ('infer', drive, '--output', out, '--model', tiny_model_dir, '--device', 'cpu')
    assert main([*map(str, words), '--scale-anchor', 'scan', '--scan-pose', POSE_WORDS]) == 0
    expected = json.loads((out / 'summary.json').read_text())['per_frame']
    settings = {
        'model': tiny_model_dir,
        'device': 'cpu',
        'scale_anchor': 'scan',
        'scan_pose': f"'{POSE_WORDS}'",
        'max_depth_m': 1000.0,
    }
    arguments = [word for name, value in settings.items() for word in ('-p', f'{name}:={value}')]
    for name, topic in (('image', IMAGE), ('camera_info', INFO), ('scan', SCAN)):
        arguments += ['-r', f'{name}:={topic}']
    with depth_node(tmp_path / 'log', *arguments) as node:
        viewer, scales = Observer(), []
        viewer.node.create_subscription(Vector3Stamped, 'depth/scale', scales.append, 50)
        assert viewer.wait_for(lambda: viewer.state() == 'active', 200), node.words()
        player = (
            '-m',
            'support.play_bag',
            'bag',
            'play',
            str(drive),
            '--clock',
            '10',
            '--rate',
            '0.25',
        )
        log = tmp_path / 'player'
        play = Process(log, *player, '--delay', '4', '--disable-keyboard-controls')
        assert viewer.wait_for(lambda: not play.alive(), 100), play.words()
        assert play.end() == 0, play.words()
        assert viewer.wait_for(lambda: len(scales) == len(viewer.reliable) == 8), node.words()
        viewer.node.destroy_node()
    for scale, image, entry in zip(scales, viewer.reliable, expected, strict=True):
        assert stamp_ns(scale) == stamp_ns(image) == entry['stamp_ns']
        assert scale.vector.x == pytest.approx(entry['anchor_scale'], rel=1e-4)
        node_m, infer_m = depth_m(image), np.load(out / entry['file'])
        known = np.isfinite(node_m)
        assert known.mean() > 0.5
        np.testing.assert_allclose(node_m[known], infer_m[known], rtol=1e-3)
    assert len({entry['anchor_scale'] for entry in expected}) > 2
