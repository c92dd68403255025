# SPDX-License-Identifier: Apache-2.0
"""The scale of depth by the way that the camera has gone between two pictures."""

import math

import numpy as np
import pytest

from smoothdino_model.scale.motion import motion_scale
from smoothdino_model.scale.tracks import Tracker, Tracks
from support.made_views import CAMERA, as_by_a_network, planes_m
from support.seen_twice import ROOM, pose_at, seen, tracks_between

KEY = pose_at()
ASIDE = pose_at(x=0.05, y=0.2, yaw=0.05)
ASIDE_M = planes_m(ROOM, ASIDE)


def moved(key, now):
    """current_from_key of two poses."""
    return np.linalg.solve(now, key)


def by_tracks(depth_m, key=KEY, now=ASIDE, tracks=None):
    return motion_scale(depth_m, CAMERA, tracks or tracks_between(key, now), moved(key, now))


@pytest.mark.parametrize('log_scale', [-0.7, -0.2, 0.0, 0.5])
def test_a_known_way_gives_back_a_known_scale(log_scale):
    depth_m = as_by_a_network(ASIDE_M, np.random.default_rng(0), scale=math.exp(-log_scale))
    found = by_tracks(depth_m)
    assert found.log_scale == pytest.approx(log_scale, abs=0.1)
    assert abs(found.log_scale - log_scale) < 2 * found.spread
    assert found.inliers > 0.8 * found.samples
    assert found.known_m == pytest.approx(np.median(ASIDE_M), rel=0.3)


@pytest.mark.parametrize('factor', [0.5, 2.0])
def test_an_odometry_of_half_the_way_gives_half_the_scale(factor):
    current_from_key = moved(KEY, ASIDE)
    current_from_key[:3, 3] *= factor
    found = motion_scale(ASIDE_M, CAMERA, tracks_between(KEY, ASIDE), current_from_key)
    assert found.scale == pytest.approx(factor, rel=0.1)


def test_pictures_themselves_give_the_scale_also_on_the_way_ahead():
    tracker = Tracker()
    poses = [pose_at(x=0.06 * i, y=0.02 * i, yaw=0.02 * i) for i in range(6)]
    found = []
    for i, pose in enumerate(poses):
        rgb, depth_m = seen(pose)
        tracks = tracker.follow(rgb, i * 100_000_000)
        if tracks is not None:
            key = poses[tracks.key_ns // 100_000_000]
            found.append(motion_scale(depth_m / 1.3, CAMERA, tracks, moved(key, pose)))
    assert [one.why_none for one in found[-3:]] == [''] * 3
    for one in found[-3:]:
        assert abs(one.log_scale - math.log(1.3)) < min(1.5 * one.spread, 0.15)


def test_a_small_turn_that_odometry_does_not_tell_is_found():
    told = moved(KEY, ASIDE)
    turned = pose_at(x=0.05, y=0.2, yaw=0.05 + math.radians(1.0))
    found = motion_scale(planes_m(ROOM, turned), CAMERA, tracks_between(KEY, turned), told)
    exact = by_tracks(ASIDE_M)
    assert abs(found.log_scale) < 2 * found.spread
    assert found.spread > exact.spread


@pytest.mark.parametrize(
    'now', [pose_at(), pose_at(yaw=0.3), pose_at(x=0.002)], ids=['stands', 'turns', 'shakes']
)
def test_without_a_way_nothing_is_said(now):
    found = by_tracks(planes_m(ROOM, now), now=now)
    assert found.why_none == 'the camera stands, or turns on the spot'


def test_a_way_that_is_short_or_leads_straight_ahead_is_too_little():
    near = pose_at(x=0.0, y=0.01)
    found = by_tracks(planes_m(ROOM, near), now=near)
    assert 'moves too little' in found.why_none
    ahead = pose_at(x=0.06)
    tracks = tracks_between(KEY, ahead)
    middle = np.abs(tracks.are_px - (CAMERA.cx_px, CAMERA.cy_px)).max(axis=1) < 30
    straight = Tracks(0, tracks.was_px[middle], tracks.are_px[middle])
    found = by_tracks(planes_m(ROOM, ahead), now=ahead, tracks=straight)
    assert 'moves too little' in found.why_none


@pytest.mark.parametrize('share', [0.1, 0.25])
def test_what_moves_by_itself_is_an_outlier(share):
    tracks = tracks_between(KEY, ASIDE)
    walks = np.random.default_rng(2).random(len(tracks.was_px)) < share
    was_px = tracks.was_px + walks[:, None] * np.array((25.0, 12.0))
    found = by_tracks(ASIDE_M, tracks=Tracks(0, was_px, tracks.are_px))
    assert found.log_scale == pytest.approx(0, abs=0.08)
    assert found.spread > by_tracks(ASIDE_M).spread


def test_a_way_in_another_direction_is_contradicted():
    told = moved(KEY, pose_at(x=0.05, y=-0.2, yaw=0.05))
    found = motion_scale(ASIDE_M, CAMERA, tracks_between(KEY, ASIDE), told)
    assert 'does not move as odometry says' in found.why_none
    for yaw in (0.3, math.pi / 2, math.pi):  # its frame turned against the camera's
        told = moved(pose_at(yaw=yaw), pose_at(x=0.05, y=0.2, yaw=2 * yaw))
        found = motion_scale(ASIDE_M, CAMERA, tracks_between(KEY, ASIDE), told)
        assert found.why_none


@pytest.mark.parametrize('unknown', [np.nan, np.inf, 0.0, -1.0])
def test_unknown_depth_does_not_count(unknown):
    holed = np.where(np.random.default_rng(3).random(ASIDE_M.shape) < 0.5, unknown, ASIDE_M)
    assert by_tracks(holed).log_scale == pytest.approx(0, abs=0.08)
    nothing = by_tracks(np.full_like(ASIDE_M, unknown))
    assert 'too few corners' in nothing.why_none


def test_depth_of_another_size_is_refused():
    with pytest.raises(ValueError, match='the size of its camera'):
        by_tracks(np.ones((4, 4)))


def test_a_picture_is_kept_until_half_of_it_is_gone_or_three_seconds():
    tracker = Tracker()
    here, _ = seen(KEY)
    assert tracker.follow(here, 0) is None
    still = tracker.follow(here, 100)
    np.testing.assert_allclose(still.was_px, still.are_px, atol=0.05)
    elsewhere, _ = seen(pose_at(yaw=1.2))
    assert tracker.follow(elsewhere, 200).key_ns == 0
    assert tracker.follow(elsewhere, 300).key_ns == 200
    assert tracker.follow(elsewhere, 4 * 10**9) is None
    assert tracker.follow(elsewhere, 5) is None  # a stamp that goes back
    assert tracker.follow(elsewhere[::2, ::2], 6) is None


def test_a_picture_without_corners_is_followed_into_nothing():
    tracker = Tracker()
    blank = np.full((240, 320, 3), 90, np.uint8)
    tracker.follow(blank, 0)
    tracks = tracker.follow(blank, 1)
    assert tracks.was_px.shape == tracks.are_px.shape == (0, 2)


@pytest.mark.parametrize('shape', [(1, 1), (2, 5), (8, 3000), (3000, 8), (16, 16)])
def test_pictures_of_any_shape_are_followed(shape):
    tracker = Tracker()
    rgb = np.random.default_rng(0).integers(0, 255, (*shape, 3), dtype=np.uint8)
    for stamp_ns, one in enumerate((rgb, rgb[..., ::-1], rgb[::-1])):
        tracks = tracker.follow(one, stamp_ns)
    assert tracks is not None


def test_a_large_picture_is_followed_in_its_own_pixels():
    tracker = Tracker()
    rgb, _ = seen(KEY)
    large = np.kron(rgb, np.ones((2, 2, 1), np.uint8))
    tracker.follow(large, 0)
    tracks = tracker.follow(np.roll(large, (4, 6), axis=(0, 1)), 1)
    np.testing.assert_allclose(np.median(tracks.are_px - tracks.was_px, axis=0), (6, 4), atol=0.1)
    assert tracks.are_px.max() > 400
