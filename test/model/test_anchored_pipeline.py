# SPDX-License-Identifier: Apache-2.0
"""Depth whose scale anchors measure: multiplied by it, each camera for itself, forgotten alike."""

import math
from dataclasses import replace
from functools import partial

import numpy as np
import pytest

from smoothdino_model import floor_of_tilt, floor_scale, points_scale
from smoothdino_model.pipeline import CameraFrame
from smoothdino_model.recordings.frames import Intrinsics
from smoothdino_model.scale.measurement import Measurement
from support.made_views import rays
from support.streams import PERIOD_NS, pipeline

PICTURES = np.random.default_rng(0).integers(0, 256, (6, 56, 70, 3), dtype=np.uint8)


def frames(anchors=None) -> list[CameraFrame]:
    return [
        CameraFrame(rgb, 10**18 + i * PERIOD_NS, anchors=anchors or {})
        for i, rgb in enumerate(PICTURES)
    ]


def half(_: np.ndarray) -> Measurement:
    return Measurement(math.log(0.5), 0.05, 100, 200)


def silent(_: np.ndarray) -> Measurement:
    return Measurement(why_none='too little of the picture is level')


def test_depth_is_that_without_times_the_anchor_scale_and_nothing_else_changes():
    plain, anchored = pipeline(), pipeline()
    for without, frame in zip(frames(), frames({'floor': half}), strict=True):
        one, other = plain.step({'a': without})['a'], anchored.step({'a': frame})['a']
        assert one.anchor_scale == 1
        assert one.anchored is None
        assert other.anchor_scale == pytest.approx(0.5, rel=0.01)
        np.testing.assert_allclose(other.depth_m, one.depth_m * other.anchor_scale, rtol=1e-5)
        assert other.shift_px == one.shift_px
        assert other.scale == one.scale == 1
        assert other.measured['floor'].inliers == 100


def test_an_anchor_measures_depth_of_the_camera_s_own_focal_length():
    seen = []

    def look(depth_m):
        seen.append(depth_m.copy())
        return half(depth_m)

    focal = 1.2
    frame = replace(frames()[0], focal=focal)
    without = pipeline().step({'a': frame})['a']
    pipeline().step({'a': replace(frame, anchors={'floor': look})})
    np.testing.assert_array_equal(seen[0], without.depth_m)


def test_each_camera_has_a_scale_of_its_own():
    pipe = pipeline()
    for one, other in zip(frames({'floor': half}), frames(), strict=True):
        results = pipe.step({'front': one, 'rear': other})
        assert results['front'].anchor_scale == pytest.approx(0.5, rel=0.01)
        assert results['rear'].anchor_scale == 1


def test_where_anchors_fall_silent_the_scale_stays_and_a_reset_forgets_it():
    pipe = pipeline()
    pipe.step({'a': frames({'floor': half})[0]})
    for frame in (frames({'floor': silent})[1], frames()[2]):
        assert pipe.step({'a': frame})['a'].anchor_scale == pytest.approx(0.5, rel=0.01)
    pipe.reset('a')
    assert pipe.step({'a': frames({'floor': silent})[3]})['a'].anchor_scale == 1
    assert pipe.step({'a': frames({'floor': half})[4]})['a'].anchor_scale > 0.9  # a tenth a frame
    back = pipe.step({'a': frames({'floor': half})[0]})['a']
    assert 'went back' in back.reset
    assert back.anchor_scale == pytest.approx(0.5, rel=0.01)


def test_the_scale_stays_in_its_range():
    pipe = pipeline()
    pipe.scale_range = (0.8, 1.25)
    assert pipe.step({'a': frames({'floor': half})[0]})['a'].anchor_scale == pytest.approx(0.8)


def test_an_anchor_that_raises_leaves_the_camera_as_it_was():
    pipe, other = pipeline(), pipeline()
    first, second = frames({'floor': half})[:2]
    pipe.step({'a': first})
    other.step({'a': first})

    def raises(_):
        raise ValueError('no such depth')

    with pytest.raises(ValueError, match='no such depth'):
        pipe.step({'a': replace(second, anchors={'floor': raises})})
    one, two = pipe.step({'a': second})['a'], other.step({'a': second})['a']
    np.testing.assert_array_equal(one.depth_m, two.depth_m)


def test_anchors_are_made_of_public_names():
    camera = Intrinsics(60.0, 60.0, 34.5, 27.5, 70, 56)
    points_m = rays(camera)[::4, ::4].reshape(-1, 3) * 1.5
    anchors = {
        'floor': partial(floor_scale, camera=camera, floor=floor_of_tilt(0.6, 15.0)),
        'scan': partial(points_scale, camera=camera, points_m=points_m),
    }
    result = pipeline().step({'a': frames(anchors)[0]})['a']
    assert set(result.measured) == {'floor', 'scan'}
    assert np.isfinite(result.anchor_scale)
