# SPDX-License-Identifier: Apache-2.0
"""The levels that an aggregator sees: OK, WARN, ERROR, STALE, each with its reason."""

from dataclasses import replace

import pytest

pytest.importorskip('rclpy', reason='needs ROS 2 (diagnostic_msgs)')

from diagnostic_msgs.msg import DiagnosticStatus

from smoothdino_ros.diagnostics import Tracking, camera_status, node_status
from smoothdino_ros.inference_worker import CameraCounts

OK, WARN = DiagnosticStatus.OK, DiagnosticStatus.WARN
ERROR, STALE = DiagnosticStatus.ERROR, DiagnosticStatus.STALE
BEFORE = CameraCounts(received=10, answered=10, last_received_s=99.0, latencies_s=(0.1, 0.3))
ONE_MORE = replace(BEFORE, received=11, last_received_s=100.0)


def of_camera(now: CameraCounts, **settings) -> DiagnosticStatus:
    asked = {'wanted': True, 'focal_correction': True, 'tracking': Tracking(frame_id='optical')}
    asked |= {'subscribed_s': 0.0, **settings}
    return camera_status('depth: front', now, BEFORE, asked.pop('tracking'), now_s=100.5, **asked)


@pytest.mark.parametrize(
    ('change', 'settings', 'level', 'word'),
    [
        ({'answered': 11}, {}, OK, 'Answering'),
        ({'dropped': 1}, {}, OK, 'Answering'),  # for a newer one: so it is meant to be
        ({'unwanted': 1}, {'wanted': False}, OK, 'nobody'),
        ({'rejected': 1, 'last_rejection': 'no picture'}, {}, WARN, 'no picture'),
        ({'overdue': 1, 'answered': 11}, {}, WARN, 'overdue'),
        ({'overdue': 1}, {}, ERROR, 'max_latency_s'),
        ({'failed': 1, 'last_failure': 'out of memory'}, {}, ERROR, 'out of memory'),
        ({'last_received_s': 90.0}, {}, STALE, '10 s'),
        ({'last_received_s': 90.0, 'rejected': 1, 'last_rejection': 'no K'}, {}, STALE, 'no K'),
        ({'last_received_s': None}, {}, STALE, 'yet'),
        ({'last_received_s': 50.0}, {'subscribed_s': None, 'wanted': False}, OK, 'not subscribed'),
        ({'last_received_s': None}, {'subscribed_s': None, 'wanted': False}, OK, 'not subscribed'),
        ({'last_received_s': 50.0}, {'subscribed_s': 99.0}, OK, 'Answering'),  # for a second
        ({'last_received_s': 50.0}, {'subscribed_s': 95.0}, STALE, '6 s'),
        ({'answered': 0}, {}, WARN, 'answered yet'),
        ({'answered': 0, 'unwanted': 1}, {'wanted': False}, OK, 'nobody'),
        ({}, {'tracking': Tracking(uncalibrated='no K')}, WARN, 'no K'),
        ({}, {'tracking': Tracking(uncalibrated='no K'), 'focal_correction': False}, OK, 'Ans'),
        ({}, {'tracking': Tracking(doubt='fx')}, WARN, 'Doubtful camera_info: fx'),
        ({}, {'tracking': Tracking(doubt='fx'), 'focal_correction': False}, OK, 'Ans'),
    ],
)
def test_the_level_of_a_camera_is_of_what_happened_since(change, settings, level, word):
    status = of_camera(replace(ONE_MORE, **change), **settings)
    assert (status.level, word in status.message) == (level, True), status.message


def test_what_is_long_past_does_not_raise_the_level():
    past = replace(BEFORE, failed=3, rejected=2, overdue=5)
    now = replace(past, answered=11, last_received_s=100.0)
    asked = {'now_s': 100.5, 'subscribed_s': 0.0, 'wanted': True, 'focal_correction': True}
    assert camera_status('a', now, past, Tracking(), **asked).level == OK


def test_every_message_has_the_same_keys_and_says_whose_it_is():
    statuses = [of_camera(ONE_MORE), of_camera(CameraCounts())]
    keys = [[one.key for one in status.values] for status in statuses]
    assert keys[0] == keys[1]
    assert len(set(keys[0])) == len(keys[0])
    assert {'overdue', 'latency p99 [ms]', 'focal length scale', 'shift [px]'} <= set(keys[0])
    assert statuses[0].hardware_id == 'optical'
    values = {one.key: one.value for one in statuses[0].values}
    assert values['latency p50 [ms]'] == '200.0'


@pytest.mark.parametrize(
    ('state', 'fault', 'enabled', 'level'),
    [
        ('active', '', True, OK),
        ('active', '', False, WARN),
        ('inactive', '', True, WARN),
        ('unconfigured', 'Cannot configure: no such model', True, ERROR),
    ],
)
def test_the_level_of_the_node(state, fault, enabled, level):
    status = node_status(
        'depth: node', state, fault=fault, enabled=enabled, device='cpu', values={'engine': 'x'}
    )
    assert status.level == level
    assert fault in status.message
    assert status.hardware_id == 'cpu'
    assert {one.key: one.value for one in status.values} == {'state': state, 'engine': 'x'}
