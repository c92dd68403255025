# SPDX-License-Identifier: Apache-2.0
"""The way between two moments by nav_msgs/Odometry, and the anchor that is made of it."""

import math
from types import SimpleNamespace

import numpy as np
import pytest

from smoothdino_model.scale.odometry import Odometry
from smoothdino_model.scale.ranges import mounted
from smoothdino_model.scale.sensors import Mounting, Sensors
from support.made_views import CAMERA
from support.seen_twice import pose_at, seen

MS = 1_000_000
POSE = (-0.3, 0.1, -0.6, 0.0, 5.0, 10.0)  # of the base from the camera


def message(at_ms, x=0.0, y=0.0, yaw=0.0, *, frame='odom', child='base', quaternion=None):
    turned = quaternion or (0.0, 0.0, math.sin(yaw / 2), math.cos(yaw / 2))
    pose = SimpleNamespace(
        position=SimpleNamespace(x=x, y=y, z=0.0),
        orientation=SimpleNamespace(**dict(zip('xyzw', turned, strict=True))),
    )
    sec, nanosec = divmod(round(at_ms * MS), 10**9)
    stamp = SimpleNamespace(sec=sec, nanosec=nanosec)
    return SimpleNamespace(
        header=SimpleNamespace(stamp=stamp, frame_id=frame),
        child_frame_id=child,
        pose=SimpleNamespace(pose=pose),
    )


def heard(*messages) -> Odometry:
    odometry = Odometry()
    for one in messages:
        odometry.take(one)
    return odometry


def on_a_circle(at_ms, **more):
    """Of one metre, a quarter of a turn a second."""
    yaw = math.pi / 2 * at_ms / 1000
    return message(at_ms, math.sin(yaw), 1 - math.cos(yaw), yaw, **more)


def test_the_way_is_interpolated_at_both_moments():
    odometry = heard(*(on_a_circle(at_ms) for at_ms in range(0, 1020, 20)))
    moved = odometry.moved(110 * MS, 770 * MS)  # where the base was, from where it is
    yaw = math.pi / 2 * 0.66
    np.testing.assert_allclose(moved[:2, 3], (-math.sin(yaw), 1 - math.cos(yaw)), atol=1e-3)
    assert math.atan2(moved[1, 0], moved[0, 0]) == pytest.approx(-yaw, abs=1e-6)
    back = odometry.moved(770 * MS, 110 * MS)
    np.testing.assert_allclose(moved @ back, np.eye(4), atol=1e-9)


def test_messages_in_any_order_and_twice_give_the_same():
    times = list(range(0, 400, 20))
    ordered = heard(*map(on_a_circle, times))
    mixed = heard(*map(on_a_circle, np.random.default_rng(0).permutation(times * 2).tolist()))
    np.testing.assert_allclose(
        mixed.moved(50 * MS, 310 * MS), ordered.moved(50 * MS, 310 * MS), atol=1e-9
    )


def test_a_robot_goes_on_as_it_went_for_a_tenth_of_a_second():
    odometry = heard(*(on_a_circle(at_ms) for at_ms in range(0, 420, 20)), on_a_circle(400.001))
    true = heard(*(on_a_circle(at_ms) for at_ms in range(0, 520, 20)))
    ahead = odometry.moved(0, 460 * MS)
    np.testing.assert_allclose(ahead, true.moved(0, 460 * MS), atol=0.02)
    with pytest.raises(ValueError, match=r'latest odometry is 0\.2 s older than the image'):
        odometry.moved(0, 600 * MS)


@pytest.mark.parametrize(
    'wrong',
    [
        {'x': math.nan},
        {'y': math.inf},
        {'quaternion': (0.0, 0.0, 0.0, 0.0)},
        {'quaternion': (0.0, 0.0, 0.0, 2.0)},
        {'quaternion': (0.0, math.nan, 0.0, 1.0)},
    ],
)
def test_what_is_no_pose_is_said_until_one_comes(wrong):
    odometry = heard(message(0), message(20), message(40, **wrong))
    with pytest.raises(ValueError, match='finite position and an orientation of length 1'):
        odometry.moved(0, 20 * MS)
    odometry.take(message(60))
    np.testing.assert_allclose(odometry.moved(0, 20 * MS), np.eye(4))


def test_nothing_is_told_across_a_jump():
    before = [message(at_ms, 0.001 * at_ms) for at_ms in range(0, 200, 20)]
    after = [message(at_ms, 0.7 + 0.001 * at_ms) for at_ms in range(200, 400, 20)]
    odometry = heard(*before, *after)
    with pytest.raises(ValueError, match=r'has jumped by 0\.7 m within 0\.02 s'):
        odometry.moved(100 * MS, 300 * MS)
    assert odometry.moved(220 * MS, 320 * MS)[0, 3] == pytest.approx(-0.1)


def test_braking_hard_is_no_jump():
    braked = (0.0015 * at_ms if at_ms < 400 else 0.6 for at_ms in range(0, 800, 50))
    odometry = heard(*(message(50 * i, x) for i, x in enumerate(braked)))
    assert odometry.moved(0, 750 * MS)[0, 3] == pytest.approx(-0.6)


@pytest.mark.parametrize(
    ('later', 'said'),
    [
        ([message(20, frame='map')], 'frames of the odometry have changed, to map and base'),
        ([message(20, child='wheel')], 'have changed, to odom and wheel'),
        ([message(-5000)], 'stamps of the odometry have gone back'),
    ],
)
def test_another_frame_or_an_older_clock_begin_anew(later, said):
    odometry = heard(message(0), message(10), *later)
    with pytest.raises(ValueError, match=said):
        odometry.moved(-6000 * MS, -5000 * MS)


def test_a_gap_and_clocks_apart_are_said():
    odometry = heard(message(0), message(2000, 0.1))
    with pytest.raises(ValueError, match=r'a gap of 2\.0 s'):
        odometry.moved(0, 1000 * MS)
    with pytest.raises(ValueError, match=r'begins 3600\.0 s after the image'):
        odometry.moved(-3_600_000 * MS, 2000 * MS)
    with pytest.raises(ValueError, match='no odometry has come'):
        Odometry().moved(0, 0)


def scales(by_tf: bool, *, way: float = 1.0, child: str = 'base') -> list:
    """What the anchor says of a drive past a wall, its true depth the network's."""

    def between(target, source, stamp_ns):
        if (target, source) != ('lens', 'base'):
            raise ValueError(f'TF knows no way from {source!r} to {target!r}')
        return mounted(*POSE)

    sensors = Sensors(('odometry',), between)
    mounting = Mounting(poses={} if by_tf else {'odometry': POSE})
    found = []
    for i in range(8):
        pose = pose_at(x=0.02 * i, y=0.05 * i, yaw=0.01 * i)
        rgb, depth_m = seen(pose)
        anchors = sensors.anchors(CAMERA, 'lens', 100 * i * MS, mounting, rgb)
        base = pose @ mounted(*POSE)
        half = np.arctan2(base[1, 0], base[0, 0]) / 2  # its pitch is the camera's, turned back
        turned = (0.0, 0.0, math.sin(half), math.cos(half))
        sensors.take(
            'odometry',
            message(100 * i, *(way * base[:2, 3]).tolist(), child=child, quaternion=turned),
        )
        found.append(anchors['odometry'](depth_m))
    return found


@pytest.mark.parametrize('by_tf', [True, False])
def test_the_camera_s_place_on_the_base_is_told_by_tf_or_numbers(by_tf):
    found = scales(by_tf)
    assert 'the first picture' in found[0].why_none
    assert not found[-1].why_none
    assert found[-1].log_scale == pytest.approx(0, abs=0.15)
    doubled = scales(by_tf, way=2.0)[-1]
    assert doubled.scale == pytest.approx(2 * found[-1].scale, rel=0.15)


def test_a_base_without_a_name_or_a_way_to_it_is_said():
    assert 'names no child_frame_id' in scales(by_tf=True, child='')[-1].why_none
    assert "no way from 'wheel' to 'lens'" in scales(by_tf=True, child='wheel')[-1].why_none
    assert scales(by_tf=False, child='')[-1].why_none == ''


def test_without_a_camera_info_nothing_is_followed():
    sensors = Sensors(('odometry',), lambda *_: np.eye(4))
    rgb, depth_m = seen(pose_at())
    anchors = sensors.anchors(None, 'lens', 0, Mounting(), rgb)
    assert 'no camera_info' in anchors['odometry'](depth_m).why_none
