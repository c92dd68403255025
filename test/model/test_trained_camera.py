# SPDX-License-Identifier: Apache-2.0
"""Depth is metric for the camera of the training, and scaled for any other that is known."""

import json
import math
import shutil

import numpy as np
import pytest

from smoothdino_model.metrics import abs_rel
from smoothdino_model.network.trained_camera import NYU, TrainedCamera, trained_camera
from smoothdino_model.pipeline import CameraFrame, DepthPipeline
from smoothdino_model.room.sample_room import NYU_FOCAL, SampleRoom
from smoothdino_model.weights.checkpoint import load_model, save_model
from smoothdino_model.weights.errors import CheckpointError
from support.tiny_networks import tiny_smoothdino

RNG = np.random.default_rng(0)
FRAMES = RNG.integers(0, 256, (5, 42, 56, 3), dtype=np.uint8)


def test_the_scale_is_the_ratio_of_the_focal_lengths():
    camera = TrainedCamera(500.0, 640, 480)
    assert camera.scale(500 / 640, height=480, width=640) == 1
    assert math.isclose(camera.scale(2 * 500 / 640, height=480, width=640), 2)
    assert math.isclose(
        camera.scale(500 / 640, height=240, width=320), 1
    )  # a picture made smaller
    # The same lens behind a wide picture of as many pixels: as before.
    wide = 480 * 640 / 360**2
    assert math.isclose(camera.scale(500 / (360 * wide), height=360, width=360 * wide), 1)


def test_the_sample_room_and_the_network_know_one_nyuv2():
    assert NYU.focal_px / NYU.width == NYU_FOCAL


@pytest.mark.parametrize('stored', [{'focal_px': 0, 'width': 1, 'height': 1}, {'focal': 1}, 'NYU'])
def test_a_stored_camera_that_is_none_is_refused(stored, tiny_model_dir, tmp_path):
    with pytest.raises(ValueError, match='trained_camera: expected'):
        trained_camera('any', stored)
    directory = shutil.copytree(tiny_model_dir, tmp_path / 'model')
    config = json.loads((directory / 'config.json').read_text())
    (directory / 'config.json').write_text(json.dumps(config | {'trained_camera': stored}))
    with pytest.raises(CheckpointError, match='trained_camera: expected'):
        load_model(directory)


def test_published_models_are_known_by_their_names():
    kitti = trained_camera('facebook/dpt-dinov2-small-kitti')
    assert kitti == trained_camera('/models/dpt-dinov2-small-kitti/')
    assert kitti.focal_px / kitti.width < 0.6 < NYU.focal_px / NYU.width
    assert trained_camera('facebook/dpt-dinov2-small-nyu') == NYU
    outdoor = trained_camera('depth-anything/Depth-Anything-V2-Metric-Outdoor-Small-hf')
    assert outdoor.width == kitti.width
    assert trained_camera('dpt-dinov2-small-kitti', {'focal_px': 9, 'width': 9, 'height': 9}) == (
        TrainedCamera(9, 9, 9)
    )


def test_a_directory_keeps_the_camera_of_its_model(tmp_path):
    model = tiny_smoothdino()
    assert model.backbone.trained_camera == NYU
    model.backbone.trained_camera = TrainedCamera(700.0, 1000, 500)
    save_model(model, tmp_path / 'x-kitti')  # what is stored counts, not the name
    assert load_model(tmp_path / 'x-kitti').backbone.trained_camera == (
        TrainedCamera(700.0, 1000, 500)
    )


def test_a_change_of_focal_length_scales_that_frame_and_forgets_nothing():
    focals = [None, NYU_FOCAL, 2 * NYU_FOCAL, None, 0.5 * NYU_FOCAL]
    plain, scaled = DepthPipeline(tiny_smoothdino()), DepthPipeline(tiny_smoothdino())
    for i, focal in enumerate(focals):
        stamp_ns = i * 33_333_333
        expected = plain.step({'': CameraFrame(FRAMES[i], stamp_ns)})['']
        got = scaled.step({'': CameraFrame(FRAMES[i], stamp_ns, focal=focal)})['']
        ratio = 1 if focal is None else focal / NYU_FOCAL
        assert math.isclose(got.scale, ratio)
        np.testing.assert_allclose(got.depth_m, expected.depth_m * np.float32(ratio), rtol=1e-6)
        assert got.reset == expected.reset
        assert got.shift_px == expected.shift_px
    assert not np.array_equal(expected.depth_m, plain.model.backbone(_batch(4))[0].numpy())


def _batch(i: int):
    import torch

    return torch.from_numpy(FRAMES[i : i + 1])


@pytest.mark.parametrize('focal', [0.0, -1.0, math.nan, math.inf])
def test_a_focal_length_that_is_none_is_refused_and_changes_nothing(focal):
    pipeline = DepthPipeline(tiny_smoothdino())
    pipeline.step({'': CameraFrame(FRAMES[0], 0)})
    with pytest.raises(ValueError, match='expected a focal length above 0'):
        pipeline.step({'': CameraFrame(FRAMES[1], 10, focal=focal)})
    assert pipeline.step({'': CameraFrame(FRAMES[1], 10)})[''].reset is None


@pytest.mark.slow
def test_a_wider_lens_makes_no_farther_rooms():
    """With the bundled model; benchmarks/focal_length.py has the figures of all lenses."""
    pipeline = DepthPipeline.from_pretrained('smoothdino-small', adapter='none', temporal=False)
    focal = 0.7 * NYU_FOCAL
    errors = []
    for seed in range(1_000_000, 1_000_006):
        room = SampleRoom(seed, height=120, width=160, focal_px=focal * 160)
        for i in (0, 60, 120):
            frame = room.frame(i)
            result = pipeline.step({'': CameraFrame(frame.rgb, 0, focal=focal)})['']
            assert math.isclose(result.scale, 0.7)
            plain = result.depth_m / result.scale
            errors.append([abs_rel(depth, frame.depth_m) for depth in (plain, result.depth_m)])
    as_it_is, corrected = np.mean(errors, axis=0)
    assert corrected < 0.9 * as_it_is


def test_the_trained_lens_is_left_as_it_is():
    pipeline = DepthPipeline.from_pretrained('smoothdino-small', adapter='none', temporal=False)
    frame = SampleRoom(1_000_000, height=60, width=80, focal_px=NYU_FOCAL * 80).frame(0)
    focal = frame.intrinsics.fx_px / frame.intrinsics.width
    plain = pipeline.step({'': CameraFrame(frame.rgb, 0)})[''].depth_m
    same = pipeline.step({'': CameraFrame(frame.rgb, 0, focal=focal)})[''].depth_m
    np.testing.assert_array_equal(same, plain)
