# SPDX-License-Identifier: Apache-2.0
"""What the model's side logs comes out of the node with the severity that it had."""

import logging

import pytest

rclpy = pytest.importorskip('rclpy', reason='needs ROS 2 (rclpy)')

from smoothdino_ros.ros_log import ToRosLog


@pytest.mark.parametrize(
    ('level', 'said'),
    [(logging.INFO, '[INFO]'), (logging.WARNING, '[WARN]'), (logging.ERROR, '[WARN]')],
)
def test_a_download_is_no_warning(capfd, level, said):
    record = logging.LogRecord('smoothdino_model', level, '', 0, 'downloading %s', ('m',), None)
    ToRosLog(rclpy.logging.get_logger('depth')).emit(record)
    words = ''.join(capfd.readouterr())
    assert words.startswith(said)
    assert words.rstrip().endswith('[depth]: downloading m')
