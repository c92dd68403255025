# SPDX-License-Identifier: Apache-2.0
"""A floor that looks like one to the bundled model, over DDS: believed at the first picture."""

import math

import pytest

rclpy = pytest.importorskip('rclpy', reason='needs ROS 2 (rclpy)')

from smoothdino_model import floor_of_pose
from support.still_room import StillRoom, anchored_node, log_error, still_view

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures('dds')]


def test_a_floor_that_looks_like_one_puts_the_scale_right_at_once(tmp_path):
    view = still_view()
    floor = floor_of_pose(view.world_from_camera)
    right, down, ahead = floor.down
    with anchored_node(
        tmp_path / 'log',
        scale_anchor='floor',
        camera_height_m=float(floor.height_m),
        camera_pitch_deg=math.degrees(math.asin(ahead)),
        camera_roll_deg=math.degrees(math.atan2(right, down)),
    ) as node:
        viewer = StillRoom(view, tmp_path)
        assert viewer.wait_for(lambda: viewer.state() == 'active', 200), node.words()
        viewer.play_on()
        assert max(abs(log_error(image, view)) for image in viewer.reliable) < 0.1
        viewer.node.destroy_node()
