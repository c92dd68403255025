# SPDX-License-Identifier: Apache-2.0
"""``smoothdino infer`` and ``bag`` on a bag with a laser scan, placed by numbers or by TF."""

import json
import math
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest

from smoothdino_model.cli.main import main
from smoothdino_model.pipeline import CameraFrame, DepthPipeline
from smoothdino_model.recordings.open import open_recording
from smoothdino_model.scale.ranges import mounted, moved, points_scale, scan_points
from support.made_recordings import pictures
from support.made_scan_bag import BEAMS, POSE, SCAN, ranges_m, write_scan_bag
from support.read_bags import custom_data, depth_of, images

pytestmark = pytest.mark.slow

BY_SCAN = ('--scale-anchor', 'scan')
BY_NUMBERS = (*BY_SCAN, '--scan-pose', ' '.join(map(str, POSE)))


@pytest.fixture(scope='module')
def drives(tmp_path_factory):
    """Bags of the same drive, by their storage."""
    folder = tmp_path_factory.mktemp('drives')
    paths = {'mcap': folder / 'mcap', 'sqlite3': folder / 'sqlite3', 'ros1': folder / 'drive.bag'}
    return {kind: write_scan_bag(path, pictures(8), kind) for kind, path in paths.items()}


def run(command, source, out, model, *options) -> int:
    words = (command, source, *(('--output', out) if command == 'infer' else (out,)))
    return main([str(one) for one in (*words, '--model', model, '--device', 'cpu', *options)])


@pytest.fixture(scope='module')
def expected(drives, tiny_model_dir):
    """What the pipeline gives when each frame brings the scan of its own time along."""
    pipeline = DepthPipeline.from_pretrained(tiny_model_dir, device='cpu')
    results = []
    with open_recording(drives['mcap']) as recording:
        for frame in recording:
            scan = SimpleNamespace(
                angle_min=-math.pi / 3,
                angle_increment=2 * math.pi / 3 / (BEAMS - 1),
                range_min=0.1,
                range_max=30.0,
                ranges=ranges_m(frame.stamp_ns),
            )
            points_m = moved(scan_points(scan), mounted(*POSE))
            camera = frame.intrinsics
            anchors = {'scan': partial(points_scale, camera=camera, points_m=points_m)}
            shown = CameraFrame(frame.rgb, frame.stamp_ns, focal=camera.focal, anchors=anchors)
            results.append(pipeline.step({'': shown})[''])
    assert results[-1].anchor_scale != 1
    assert len({one.measured['scan'].log_scale for one in results}) == len(results)
    return results


@pytest.mark.parametrize('storage', ['mcap', 'sqlite3', 'ros1'])
@pytest.mark.parametrize('options', [BY_SCAN, BY_NUMBERS])
def test_infer_takes_the_scan_of_each_image_s_time(
    options, storage, drives, expected, tmp_path, tiny_model_dir
):
    out = tmp_path / 'out'
    assert run('infer', drives[storage], out, tiny_model_dir, *options) == 0
    summary = json.loads((out / 'summary.json').read_text())
    assert summary['scale_anchor']['topics'] == {'scan': SCAN}
    for result, entry in zip(expected, summary['per_frame'], strict=True):
        np.testing.assert_allclose(np.load(out / entry['file']), result.depth_m, rtol=1e-4)
        assert entry['anchor_scale'] == pytest.approx(result.anchor_scale, rel=1e-4)
        assert entry['anchors']['scan']['inliers'] == result.measured['scan'].inliers


def test_bag_takes_it_as_well_and_tells_of_the_scale(
    drives, expected, tmp_path, tiny_model_dir, capsys
):
    out = tmp_path / 'out'
    assert run('bag', drives['mcap'], out, tiny_model_dir, *BY_SCAN, '--max-depth', '1000') == 0
    depths = [depth_of(message) for message in images(out)]
    for result, depth in zip(expected, depths, strict=True):
        known = np.isfinite(depth)
        assert known.any()
        np.testing.assert_allclose(depth[known], result.depth_m[known], rtol=1e-4)
    words = f'measured in {len(expected)} of {len(expected)} frames'
    assert words in capsys.readouterr().out
    told = custom_data(out)
    assert words in told['smoothdino_anchor_scale']
    assert json.loads(told['smoothdino_scale_anchor'])['topics'] == {'scan': SCAN}


def test_where_tf_knows_no_way_the_scale_stays_and_it_is_said(tmp_path, tiny_model_dir, capsys):
    drive, out = write_scan_bag(tmp_path / 'drive', pictures(3), tf=False), tmp_path / 'out'
    assert run('infer', drive, out, tiny_model_dir, *BY_SCAN) == 0
    summary = json.loads((out / 'summary.json').read_text())
    for entry in summary['per_frame']:
        assert entry['anchor_scale'] == 1
        assert "no way from 'laser' to 'optical'" in entry['anchors']['scan']
    assert 'measured in 0 of 3 frames, else mostly: TF knows no way' in capsys.readouterr().out


@pytest.mark.parametrize('command', ['infer', 'bag'])
@pytest.mark.parametrize(
    ('options', 'reason'),
    [
        (('--scale-anchor', 'range'), 'one topic of sensor_msgs/msg/Range in'),
        ((*BY_SCAN, '--scan', '/nowhere'), 'got /nowhere (not there): name one (--scan) of: /fr'),
        ((*BY_SCAN, '--scan', '/cam/image_raw'), '/cam/image_raw (sensor_msgs/msg/Image)'),
        (('--scale-anchor', 'sky'), '--scale-anchor: expected none or some of floor, scan'),
        ((*BY_SCAN, '--scan-pose', '1 2'), '--scan-pose: expected six numbers'),
        (('--scan', SCAN), 'expected --scale-anchor scan together with --scan'),
        ((*BY_SCAN, '--range-pose', '0 0 0 0 0 0'), 'expected --scale-anchor range together'),
        (
            ('--scale-anchor', 'floor', '--base-frame', 'base', '--tilt-by-imu'),
            '--tilt-by-imu tog',
        ),
        ((*BY_SCAN, '--imu', '/imu'), 'expected --tilt-by-imu together with --imu'),
        ((*BY_SCAN, '--camera-height', '1'), 'together with --camera-height'),
    ],
)
def test_what_is_not_there_or_does_not_fit_is_refused_in_words(
    command, options, reason, drives, tmp_path, tiny_model_dir, capsys
):
    out = tmp_path / 'out'
    assert run(command, drives['mcap'], out, tiny_model_dir, *options) == 2
    assert reason in capsys.readouterr().err
    assert not out.exists()


def test_of_several_scans_one_is_to_be_named(tmp_path, tiny_model_dir, capsys):
    drive = write_scan_bag(tmp_path / 'drive', pictures(3), scans=(SCAN, '/rear/scan'))
    assert run('infer', drive, tmp_path / 'out', tiny_model_dir, *BY_SCAN) == 2
    assert 'got 2: name one (--scan) of: /front/scan, /rear/scan' in capsys.readouterr().err
    named = (*BY_SCAN, '--scan', '/rear/scan')
    assert run('infer', drive, tmp_path / 'out', tiny_model_dir, *named) == 0


@pytest.mark.parametrize('storage', ['mcap', 'ros1'])
@pytest.mark.parametrize('known_by', [('--base-frame', 'base'), ('--tilt-by-imu',)])
def test_the_floor_is_known_by_tf_or_an_imu_as_by_numbers(
    known_by, storage, drives, tmp_path, tiny_model_dir
):
    anchors = []
    for options in (known_by, ('--camera-pitch', '0')):
        out = tmp_path / options[0]
        floor = ('--scale-anchor', 'floor', '--camera-height', '0.5', *options)
        assert run('infer', drives[storage], out, tiny_model_dir, *floor) == 0
        frames = json.loads((out / 'summary.json').read_text())['per_frame']
        anchors.append([one['anchors']['floor'] for one in frames])
    assert anchors[0] == anchors[1]
    assert 'TF' not in anchors[0][0]
    assert 'imu' not in anchors[0][0]
