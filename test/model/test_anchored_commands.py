# SPDX-License-Identifier: Apache-2.0
"""``smoothdino infer`` and ``bag`` with a floor: what the pipeline gives, told of, or refused."""

import json
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from smoothdino_model.cli.main import main
from smoothdino_model.pipeline import CameraFrame, DepthPipeline
from smoothdino_model.recordings.open import open_recording
from smoothdino_model.scale.floor import floor_of_tilt, floor_scale
from support.made_recordings import pictures, write_bag
from support.read_bags import custom_data, depth_of, images

pytestmark = pytest.mark.slow

FLOOR = ('--scale-anchor', 'floor', '--camera-height', '0.02', '--camera-pitch', '70')


@pytest.fixture(scope='module')
def drive(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp('bags') / 'drive'
    write_bag(path, pictures(6))
    return path


def run(command, source, out, model, *options) -> int:
    words = (command, source, *(('--output', out) if command == 'infer' else (out,)))
    return main([str(one) for one in (*words, '--model', model, '--device', 'cpu', *options)])


def expected(source, model):
    pipeline = DepthPipeline.from_pretrained(model, device='cpu')
    floor = floor_of_tilt(0.02, 70.0)
    with open_recording(source) as recording:
        for frame in recording:
            camera = frame.intrinsics
            anchors = {'floor': partial(floor_scale, camera=camera, floor=floor)}
            shown = CameraFrame(frame.rgb, frame.stamp_ns, focal=camera.focal, anchors=anchors)
            yield pipeline.step({'': shown})['']


def test_infer_gives_the_pipeline_s_depth_and_tells_of_the_scale(drive, tmp_path, tiny_model_dir):
    out = tmp_path / 'out'
    assert run('infer', drive, out, tiny_model_dir, *FLOOR) == 0
    summary = json.loads((out / 'summary.json').read_text())
    assert summary['scale_anchor']['height_m'] == 0.02
    results = list(expected(drive, tiny_model_dir))
    assert len(results) == len(summary['per_frame']) == 6
    for result, entry in zip(results, summary['per_frame'], strict=True):
        np.testing.assert_array_equal(np.load(out / entry['file']), result.depth_m)
        assert entry['anchor_scale'] == result.anchor_scale
        told = entry['anchors']['floor']
        if result.measured['floor'].why_none:
            assert told == result.measured['floor'].why_none
        else:
            assert told['inliers'] == result.measured['floor'].inliers


def test_bag_gives_the_pipeline_s_depth_and_tells_of_the_scale(
    drive, tmp_path, tiny_model_dir, capsys
):
    out = tmp_path / 'out'
    assert run('bag', drive, out, tiny_model_dir, *FLOOR, '--max-depth', '1000') == 0
    results = list(expected(drive, tiny_model_dir))
    depths = [depth_of(message) for message in images(out)]
    for result, depth in zip(results, depths, strict=True):
        known = np.isfinite(depth)
        assert known.mean() > 0.5
        np.testing.assert_array_equal(depth[known], result.depth_m[known])
    measured = sum(not one.measured['floor'].why_none for one in results)
    assert f'measured in {measured} of 6 frames' in capsys.readouterr().out
    told = custom_data(out)
    assert json.loads(told['smoothdino_scale_anchor'])['height_m'] == 0.02
    assert f'measured in {measured} of 6 frames' in told['smoothdino_anchor_scale']


@pytest.mark.parametrize('command', ['infer', 'bag'])
@pytest.mark.parametrize(
    ('options', 'reason'),
    [
        (('--scale-anchor', 'floor'), 'together with --camera-height'),
        (('--camera-height', '0.6'), 'together with --camera-height'),
        (('--scale-anchor', 'floor', '--camera-height', '-1'), '0.02 to 100 m'),
    ],
)
def test_half_of_the_numbers_or_a_wrong_one_is_refused_in_words(
    command, options, reason, drive, tmp_path, tiny_model_dir, capsys
):
    out = tmp_path / 'out'
    assert run(command, drive, out, tiny_model_dir, *options) == 2
    assert reason in capsys.readouterr().err
    assert not out.exists()


def test_a_folder_that_tells_no_focal_length_is_refused(tmp_path, tiny_model_dir, capsys):
    import cv2

    folder, out = tmp_path / 'pictures', tmp_path / 'out'
    folder.mkdir()
    cv2.imwrite(str(folder / 'a.png'), np.zeros((56, 70, 3), np.uint8))
    assert run('infer', folder, out, tiny_model_dir, *FLOOR) == 2
    assert 'tells no focal length' in capsys.readouterr().err
    assert not out.exists()
