# SPDX-License-Identifier: Apache-2.0
"""Fixtures of the tests over real DDS."""

import pytest

from smoothdino_ros.demo.own_domain import own_domain


@pytest.fixture(scope='module')
def dds():
    """rclpy in a DDS domain of its own."""
    import rclpy

    from support.ros_processes import ROOT

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv('ROS_DOMAIN_ID', own_domain())
        patch.setenv('ROS_AUTOMATIC_DISCOVERY_RANGE', 'LOCALHOST')
        patch.setenv('FASTRTPS_DEFAULT_PROFILES_FILE', str(ROOT / 'config' / 'fastdds.xml'))
        patch.setenv('OMP_NUM_THREADS', '1')
        rclpy.init()
        yield
        rclpy.shutdown()
