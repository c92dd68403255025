# SPDX-License-Identifier: Apache-2.0
"""Which way is up by an IMU, and the floor under a camera by that."""

import math
from types import SimpleNamespace

import numpy as np
import pytest

from smoothdino_model.recordings.frames import Intrinsics
from smoothdino_model.scale.floor import floor_of_tilt
from smoothdino_model.scale.gravity import Gravity
from smoothdino_model.scale.ranges import mounted
from smoothdino_model.scale.sensors import Mounting, Sensors

MS = 1_000_000
NOT_TOLD = [-1.0] + [0.0] * 8
BLANK = np.zeros((48, 64, 3), np.uint8)
POSE = (0.1, 0.2, 0.3, 170.0, -35.0, 80.0)  # of the IMU in the camera


def vector(values) -> SimpleNamespace:
    return SimpleNamespace(**dict(zip('xyzw', map(float, values), strict=False)))


def imu(stamp_ns=0, *, acceleration=None, orientation=None) -> SimpleNamespace:
    sec, nanosec = divmod(stamp_ns, 10**9)
    stamp = SimpleNamespace(sec=sec, nanosec=nanosec)
    return SimpleNamespace(
        header=SimpleNamespace(stamp=stamp, frame_id='imu_link'),
        orientation=vector((0, 0, 0, 0) if orientation is None else orientation),
        orientation_covariance=NOT_TOLD if orientation is None else [0.0] * 9,
        linear_acceleration=vector((0, 0, 0) if acceleration is None else acceleration),
        linear_acceleration_covariance=NOT_TOLD if acceleration is None else [0.0] * 9,
    )


def up_of(*messages, at_ns=0) -> np.ndarray:
    gravity = Gravity()
    for message in messages:
        gravity.take(message)
    return gravity.nearest(at_ns)[1]


def apart_deg(one, other) -> float:
    return math.degrees(math.acos(min(float(np.dot(one, other)), 1.0)))


def test_an_orientation_tells_up_whatever_the_heading():
    for yaw_deg in (0, 40, 200):
        half, lean = math.radians(yaw_deg) / 2, math.radians(30) / 2
        # Turned about z, then leaned about its own x by 30 degrees.
        quaternion = (
            math.cos(half) * math.sin(lean),
            math.sin(half) * math.sin(lean),
            math.sin(half) * math.cos(lean),
            math.cos(half) * math.cos(lean),
        )
        up = up_of(imu(orientation=quaternion))
        np.testing.assert_allclose(up, (0, 0.5, math.sqrt(0.75)), atol=1e-9)
        np.testing.assert_allclose(up_of(imu(orientation=[-q for q in quaternion])), up)


def test_without_an_orientation_the_acceleration_at_rest_tells_it():
    up = np.array((0.6, 0.0, -0.8))
    np.testing.assert_allclose(up_of(imu(acceleration=9.7 * up)), up, atol=1e-9)
    not_filled_in = imu(acceleration=9.7 * up)
    not_filled_in.orientation_covariance = [0.0] * 9
    np.testing.assert_allclose(up_of(not_filled_in), up, atol=1e-9)
    both = imu(acceleration=9.7 * up, orientation=(0, 0, 0, 1))
    np.testing.assert_allclose(up_of(both), (0, 0, 1), atol=1e-9)


def test_a_robot_that_brakes_or_shakes_is_not_tilted_much_and_a_lasting_tilt_is_followed():
    rng = np.random.default_rng(0)
    gravity = Gravity()
    for i in range(200):
        gravity.take(imu(10 * MS * i, acceleration=rng.normal((0, 0, 9.81), 2)))
    assert apart_deg(gravity.nearest(1990 * MS)[1], (0, 0, 1)) < 3
    for i in range(200, 230):
        gravity.take(imu(10 * MS * i, acceleration=(-3.0, 0, 9.81)))
    assert apart_deg(gravity.nearest(2290 * MS)[1], (0, 0, 1)) < 7  # 17 at once
    leant = (0, 0.5, math.sqrt(0.75))
    for i in range(230, 830):
        gravity.take(imu(10 * MS * i, acceleration=9.81 * np.array(leant)))
    assert apart_deg(gravity.nearest(8290 * MS)[1], leant) < 0.5


def test_clocks_that_go_back_and_silences_begin_anew():
    for stamp_ns in (0, 10_000 * MS):
        first = imu(5000 * MS, acceleration=(9.81, 0, 0))
        later = imu(stamp_ns, acceleration=(0, 0, 9.81))
        np.testing.assert_allclose(up_of(first, later, at_ns=stamp_ns), (0, 0, 1))


@pytest.mark.parametrize(
    ('message', 'why'),
    [
        (imu(acceleration=(0.1, 0, 0.2)), 'gravity must be left in it'),
        (imu(acceleration=(0, 0, 1.0)), r'about 9.81 m/s\^2 at rest, got 1.0'),  # in g
        (imu(acceleration=(0, math.nan, 9.81)), 'no finite acceleration'),
        (imu(orientation=(0, 0, 0, 2)), 'length 1, got 2'),
        (imu(orientation=(0, 0, math.nan, 1)), 'length 1, got nan'),
        (imu(), 'neither orientation nor acceleration'),
        (imu(1000 * MS, acceleration=(0, 0, 9.81)), r'imu is 1\.0 s younger'),
    ],
)
def test_what_does_not_tell_is_refused_in_words(message, why):
    with pytest.raises(ValueError, match=why):
        up_of(message)


def test_one_that_is_not_finite_spoils_no_later_one():
    broken, good = imu(acceleration=(0, math.inf, 0)), imu(MS, acceleration=(0, 0, 9.81))
    np.testing.assert_allclose(up_of(broken, good, at_ns=MS), (0, 0, 1))


@pytest.mark.parametrize(('pitch_deg', 'roll_deg'), [(0, 0), (25, 0), (-20, 10), (60, -30)])
@pytest.mark.parametrize('by_tf', [False, True])
def test_the_floor_by_an_imu_is_that_of_the_camera_s_angles(pitch_deg, roll_deg, by_tf):
    expected = floor_of_tilt(0.7, pitch_deg, roll_deg)
    camera_from_imu = mounted(*POSE)
    asked = []

    def between(target, source, stamp_ns):
        asked.append((target, source))
        return camera_from_imu

    sensors = Sensors(('floor',), between)
    up = -camera_from_imu[:3, :3].T @ expected.down
    sensors.take('imu', imu(acceleration=9.81 * up))
    mounting = Mounting(0.7, tilt_by_imu=True, poses={} if by_tf else {'imu': POSE})
    camera = Intrinsics(50.0, 50.0, 32.0, 24.0, 64, 48)
    sensors.anchors(camera, 'lens', 0, mounting, BLANK)
    assert asked == [('lens', 'imu_link')] * by_tf
    assert sensors.floor.height_m == expected.height_m
    np.testing.assert_allclose(sensors.floor.down, expected.down, atol=1e-9)
    words = f'0.70 m over it, pitch {pitch_deg:.1f}, roll {roll_deg:.1f} degrees'
    assert sensors.floor.in_words().replace('-0.0', '0.0') == words


def test_without_an_imu_the_floor_says_so():
    sensors = Sensors(('floor',), lambda *_: np.eye(4))
    anchors = sensors.anchors(
        Intrinsics(50.0, 50.0, 32.0, 24.0, 64, 48), '', 0, Mounting(0.7, tilt_by_imu=True), BLANK
    )
    assert anchors['floor'](np.ones((48, 64))).why_none == 'no imu has come'
    assert sensors.floor is None
