# SPDX-License-Identifier: Apache-2.0
"""Anchored depth in evaluation: that of the pipeline, and figures that say what anchors save."""

import json
import math
from functools import partial

import numpy as np
import pytest
import torch

from smoothdino_model import load_model, save_model
from smoothdino_model.camera_frame import CameraFrame
from smoothdino_model.network.floor_looks import FloorLooks
from smoothdino_model.pipeline import DepthPipeline
from smoothdino_model.room.sample_room import SampleRoom
from smoothdino_model.scale.floor import floor_of_pose, floor_of_tilt, floor_scale
from smoothdino_model.scale.ranges import points_scale
from support.made_views import CAMERA, planes_m, pose_of
from training import evaluate
from training.data.room import unseen_room
from training.evaluation.anchored import (
    Anchored,
    Surroundings,
    floor_share,
    scan_of,
    true_floor_scale,
)
from training.evaluation.driven import Driven
from training.evaluation.gaps import gaps
from training.evaluation.measure import ERRORS, Measured, measure
from training.evaluation.methods import PER_FRAME, Methods
from training.evaluation.stretches import rooms

LEVEL = ((0.0, 0.0, 1.0), 0.0, lambda points: np.ones(points.shape[:2], bool))
WALL = ((1.0, 0.0, 0.0), 3.0, lambda points: np.ones(points.shape[:2], bool))


def seen(height_m, pitch_deg, *planes):
    truth_m = planes_m(planes, pose_of(height_m, pitch_deg, 0))
    return Surroundings(CAMERA, floor_of_tilt(height_m, pitch_deg), truth_m, 7)


@pytest.fixture(params=[False, True], ids=['geometry', 'looks'])
def model_dir(request, tiny_model_dir, tmp_path):
    if not request.param:
        return tiny_model_dir
    model = load_model(tiny_model_dir, adapter='none')
    weights = torch.linspace(-1, 1, model.backbone.channels)
    model.floor_looks = FloorLooks(0, weights, 2.0, model.backbone.input_height)
    save_model(model, tmp_path)
    return tmp_path


@pytest.mark.slow
def test_anchored_depth_is_that_of_the_pipeline(model_dir):
    methods = Methods(model_dir, {}, memories=[2], device='cpu')
    room = rooms(1, frames=5, stride=9, size=(48, 64), any_mount=True).stretches[0]
    measured = measure([room], methods, anchored=Anchored(['floor', 'scan', 'floor+scan']))
    pipeline = DepthPipeline.from_pretrained(
        model_dir, adapter='none', device='cpu', precision='fp32'
    )
    window = room.read(range(5))
    for way in ('floor', 'scan', 'floor+scan'):
        pipeline.reset()
        for i in range(5):
            around = Surroundings(
                window.camera, window.floors[i], window.depth_m[i], window.stamps_ns[i]
            )
            points_m = scan_of(around, height_m=None)
            anchors = {
                'floor': partial(floor_scale, camera=around.camera, floor=around.floor),
                'scan': partial(points_scale, camera=around.camera, points_m=points_m),
            }
            shown = {kind: anchors[kind] for kind in way.split('+')}
            frame = CameraFrame(
                window.rgb[i], window.stamps_ns[i], focal=window.focal, anchors=shown
            )
            depth_m = pipeline.step({'': frame})[''].depth_m
            error = np.mean(np.abs(depth_m - window.depth_m[i]) / window.depth_m[i])
            assert measured.values[way]['abs_rel'][i] == pytest.approx(error, rel=2e-3)


def test_the_true_floor_says_what_is_right_on_the_floor():
    around = seen(1.2, 20.0, LEVEL, WALL)
    depth_m = around.truth_m.copy()
    depth_m[:60] *= 3  # the wall
    assert true_floor_scale(depth_m / 1.5, around).scale == pytest.approx(1.5)
    assert true_floor_scale(depth_m, seen(1.2, -30.0, LEVEL, WALL)).why_none


def test_a_scan_sees_what_is_true_where_it_is():
    around = seen(1.2, 10.0, LEVEL, WALL)
    for height_m in (0.3, 1.2):
        points_m = scan_of(around, height_m=height_m)
        over_m = around.floor.height_m - points_m @ around.floor.down
        assert len(points_m) > 60
        assert np.abs(over_m - height_m).max() < 0.1
        pitch = math.radians(10.0)
        ahead_m = points_m[:, 2] * math.cos(pitch) - points_m[:, 1] * math.sin(pitch)
        assert np.abs(ahead_m - 3.0).max() < 0.1
        assert 0.005 < np.std(ahead_m) < 0.04
        np.testing.assert_array_equal(points_m, scan_of(around, height_m=height_m))
    middle = scan_of(around, height_m=None)
    np.testing.assert_allclose(middle[:, 1] / middle[:, 2], 0, atol=0.01)
    assert 60 < len(middle) < 140


def test_a_scan_of_what_is_unknown_is_empty():
    around = seen(1.2, 10.0, LEVEL, WALL)
    nothing = Surroundings(CAMERA, None, np.full_like(around.truth_m, np.nan), 0)
    assert scan_of(nothing, height_m=None).shape == (0, 3)


def test_the_share_of_floor_is_that_of_the_truth():
    around = seen(1.2, 30.0, LEVEL)
    assert floor_share(around) > 0.9
    assert floor_share(seen(1.2, -40.0, WALL)) == 0
    assert math.isnan(floor_share(Surroundings(CAMERA, None, around.truth_m, 0)))


def test_a_camera_may_be_held_anywhere():
    heights_m, pitches_deg = [], []
    for number in range(6):
        room = unseen_room(number, height=24, width=32, any_mount=True)
        floor = floor_of_pose(room.frame(0).world_from_camera)
        heights_m.append(floor.height_m)
        pitches_deg.append(math.degrees(math.asin(floor.down[2])))
    assert 0.1 < min(heights_m) < 0.6 < 1.2 < max(heights_m) < 2.0
    assert min(pitches_deg) < 0 < 15 < max(pitches_deg)
    held = SampleRoom(3, height=24, width=32, camera_height_m=0.3, camera_pitch_deg=12.0)
    floors = [floor_of_pose(held.frame(10 * i).world_from_camera) for i in range(30)]
    assert np.median([floor.height_m for floor in floors]) == pytest.approx(0.3, abs=0.1)


def test_odometry_is_the_true_way_all_but():
    room = rooms(1, frames=8, stride=3, size=(48, 64), any_mount=True).stretches[0]
    window = room.read(range(8))
    poses = window.world_from_camera
    made = []
    for driven in (Driven(), Driven()):
        for rgb, stamp_ns, pose in zip(window.rgb, window.stamps_ns, poses, strict=True):
            driven.anchor(rgb, stamp_ns, window.camera, pose)
        made.append(driven._poses[window.stamps_ns[-1]])
    np.testing.assert_array_equal(*made)
    true = np.linalg.solve(poses[0], poses[-1])
    way_m = np.linalg.norm(true[:3, 3])
    off_m = np.linalg.norm(made[0][:3, 3] - true[:3, 3])
    assert 0 < off_m < 0.05 * way_m


def made_up(figures, floor_share):
    """Figures: abs_rel without, at the best scale and anchored, of each frame."""
    measured = Measured([PER_FRAME, 'floor'], anchored=['floor'])
    for number, (without, best, anchored) in enumerate(figures):
        measured.scenes.append('hall')
        measured.positions.append(number)
        measured.floor_share.append(floor_share)
        for name, error in ((PER_FRAME, without), ('floor', anchored)):
            values = dict.fromkeys((*ERRORS, 'flicker'), 0.1)
            values |= {'abs_rel': error, 'abs_rel_aligned': best}
            for metric, value in values.items():
                measured.values[name][metric].append(value)
    return measured


def test_the_closed_share_is_of_the_frames_that_need_it():
    figures = [(0.5, 0.1, 0.3), (0.3, 0.1, 0.1), (0.12, 0.1, 0.5)]
    every, hall = gaps(made_up(figures, floor_share=0.2))
    assert every['needy'] == 2
    assert every['closed'] == pytest.approx((0.2 + 0.2) / (0.4 + 0.2))
    assert hall['scale_p50'] == pytest.approx(0.1)
    (_, nowhere) = gaps(made_up([(0.12, 0.1, 0.5)], floor_share=0.05))
    assert nowhere['closed'] is None
    assert nowhere['scale_p50'] is None


@pytest.mark.slow
def test_the_table_has_a_row_for_each_way(tiny_model_dir, tmp_path, capsys):
    table = tmp_path / 'rows.json'
    given = ('--source', 'room', '--any-mount', '--rooms', '2', '--frames', '3', '--size', '48x64')
    evaluate.main([*given, '--model', str(tiny_model_dir),
                   '--scale-anchor', 'floor', 'scan', '--scan-height', '0.3',
                   '--json', str(table)])  # fmt: skip
    came = json.loads(table.read_text())
    assert [row['name'] for row in came['rows'] if row['scene'] == 'all'] == [
        *('per_frame', 'temporal', 'floor', 'scan')
    ]
    assert {(row['scene'], row['name']) for row in came['anchors']} == {
        (scene, name) for scene in ('all', 'room_0', 'room_1') for name in ('floor', 'scan')
    }
    assert 'closed' in capsys.readouterr().out


def test_an_anchor_that_there_is_not_is_refused_in_words(capsys):
    with pytest.raises(SystemExit):
        evaluate.main(['--source', 'room', '--scale-anchor', 'sonar'])
    assert (
        "expected some of floor, scan, odometry, true-floor, joined by +, got 'sonar'"
        in capsys.readouterr().err
    )
