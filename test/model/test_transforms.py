# SPDX-License-Identifier: Apache-2.0
"""The way from one frame to another by what TF has said: products, inverses, between two times."""

import math

import numpy as np
import pytest

from smoothdino_model.scale.transforms import Transforms

S = 10**9


def turn(axis: int, angle: float) -> tuple[float, ...]:
    """Quaternion x, y, z, w."""
    quaternion = [0.0, 0.0, 0.0, math.cos(angle / 2)]
    quaternion[axis] = math.sin(angle / 2)
    return tuple(quaternion)


def tree() -> Transforms:
    """map > base > (mast > camera), (scan), of which the mast turns; and an island."""
    tf = Transforms()
    tf.add('map', 'base', 0, (5, 6, 0), turn(2, 0.3), static=True)
    tf.add('base', 'scan', 0, (0.2, 0, 0.3), turn(0, math.pi), static=True)
    tf.add('mast', 'camera', 0, (0, 0, 1.0), turn(1, 0.4), static=True)
    for i in range(5):
        tf.add('base', 'mast', i * S, (0.1 * i, 0, 0), turn(2, 0.2 * i), static=False)
    tf.add('far', 'island', 0, (0, 0, 0), turn(0, 0), static=True)
    return tf


def test_there_and_back_is_nowhere_and_over_a_third_it_is_the_same():
    tf = tree()
    for one, other in (('camera', 'scan'), ('map', 'camera'), ('mast', 'base'), ('scan', 'scan')):
        there, back = tf.between(one, other, S), tf.between(other, one, S)
        np.testing.assert_allclose(there @ back, np.eye(4), atol=1e-12)
        over = tf.between(one, 'base', S) @ tf.between('base', other, S)
        np.testing.assert_allclose(there, over, atol=1e-12)
        np.testing.assert_allclose(there[:3, :3] @ there[:3, :3].T, np.eye(3), atol=1e-12)


def test_a_transform_is_parent_from_child_by_its_quaternion():
    point = tree().between('base', 'scan', 0) @ (1, 2, 3, 1)  # upside down, 0.3 over the base
    np.testing.assert_allclose(point, (1.2, -2, -2.7, 1), atol=1e-12)
    np.testing.assert_allclose(
        tree().between('map', 'base', 0)[:2, 0], (math.cos(0.3), math.sin(0.3)), atol=1e-12
    )


@pytest.mark.parametrize('at_s', [0.0, 0.25, 1.5, 3.99, 4.0])
def test_between_two_times_a_frame_moves_evenly_by_the_shorter_way(at_s):
    pose = tree().between('base', 'mast', round(at_s * S))
    assert pose[0, 3] == pytest.approx(0.1 * at_s)
    assert math.atan2(pose[1, 0], pose[0, 0]) == pytest.approx(0.2 * at_s)
    negated = Transforms()  # the same rotation, of the other sign
    negated.add('base', 'mast', 0, (0, 0, 0), turn(2, 0.0), static=False)
    negated.add('base', 'mast', S, (0, 0, 0), [-v for v in turn(2, 0.2)], static=False)
    pose = negated.between('base', 'mast', S // 2)
    assert math.atan2(pose[1, 0], pose[0, 0]) == pytest.approx(0.1)


def test_a_little_late_the_nearest_counts_and_much_later_it_is_said():
    tf = tree()
    np.testing.assert_array_equal(
        tf.between('base', 'mast', 4 * S + S // 3), tf.between('base', 'mast', 4 * S)
    )
    with pytest.raises(ValueError, match=r"of 'mast' is 6\.0 s older .* clocks"):
        tf.between('camera', 'scan', 10 * S)
    with pytest.raises(ValueError, match=r"of 'mast' is 9\.0 s younger"):
        tf.between('camera', 'scan', -9 * S)
    tf.between('map', 'scan', 10**6 * S)  # static, so at any time


def test_what_there_is_no_way_to_is_named_and_a_circle_ends():
    tf = tree()
    for target, source in (('camera', 'island'), ('camera', 'nobody'), ('nobody', 'camera')):
        with pytest.raises(ValueError, match=r'no way from .*static_transform_publisher'):
            tf.between(target, source, 0)
    tf.add('a', 'b', 0, (0, 0, 0), turn(0, 0), static=True)
    tf.add('b', 'a', 0, (0, 0, 0), turn(0, 0), static=True)
    with pytest.raises(ValueError, match='no way'):
        tf.between('camera', 'a', 0)
    np.testing.assert_array_equal(tf.between('nobody', 'nobody', 0), np.eye(4))


def test_what_is_no_transform_is_left_out_and_a_slash_does_not_count():
    tf = tree()
    before = tf.between('base', 'scan', 0)
    tf.add('base', 'scan', 0, (math.nan, 0, 0), turn(0, 0), static=True)
    tf.add('base', 'scan', 0, (1, 0, 0), (0, 0, 0, 0), static=True)
    tf.add('scan', 'scan', 0, (1, 0, 0), turn(0, 0), static=True)
    np.testing.assert_array_equal(tf.between('/base', '/scan', 0), before)
    tf.add('/base', '/scan', 0, (1, 0, 0), (0, 0, 0, 2.0), static=True)  # not of length 1
    np.testing.assert_allclose(tf.between('base', 'scan', 0)[:3, 3], (1, 0, 0))


def test_a_bag_that_begins_anew_is_followed():
    tf = tree()
    for i in range(3):
        tf.add('base', 'mast', i * S, (7.0, 0, 0), turn(2, 0), static=False)
    assert tf.between('base', 'mast', S)[0, 3] == pytest.approx(7.0)
    with pytest.raises(ValueError, match='older'):
        tf.between('base', 'mast', 4 * S)


def test_what_is_kept_is_bounded_and_of_a_late_one_the_order_holds():
    tf = Transforms()
    for i in range(5000):
        tf.add('base', 'mast', i * S // 100, (i, 0, 0), turn(2, 0), static=False)
    tf.add('base', 'mast', 4998 * S // 100, (4998, 0, 0), turn(2, 0), static=False)
    assert tf.between('base', 'mast', round(49.905 * S))[0, 3] == pytest.approx(4990.5)
    with pytest.raises(ValueError, match='younger'):
        tf.between('base', 'mast', 0)
