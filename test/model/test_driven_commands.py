# SPDX-License-Identifier: Apache-2.0
"""``smoothdino infer`` and ``bag`` on a bag with odometry: the scale by the way driven."""

import json

import numpy as np
import pytest

from smoothdino_model.cli.main import main
from support.driven_room import POSE, DrivenRoom
from support.made_odometry_bag import ODOMETRY, write_odometry_bag
from support.read_bags import custom_data

pytestmark = pytest.mark.slow

FRAMES = 10
MODEL = ('--model', 'smoothdino-small', '--device', 'cpu', '--no-focal-correction')
BY_ODOMETRY = (*MODEL, '--scale-anchor', 'odometry')
BY_NUMBERS = (*BY_ODOMETRY, '--odometry-pose', ' '.join(map(str, POSE)))


@pytest.fixture(scope='module')
def room():
    return DrivenRoom()


def inferred(drive, out, *options) -> tuple[dict, list[np.ndarray]]:
    """The summary, and the depth of each frame."""
    assert main(['infer', str(drive), '--output', str(out), *map(str, options)]) == 0
    summary = json.loads((out / 'summary.json').read_text())
    return summary, [np.load(out / one['file']) for one in summary['per_frame']]


def test_the_way_driven_puts_depth_right_by_tf_as_by_numbers(room, tmp_path):
    drive = write_odometry_bag(tmp_path / 'drive', room, FRAMES)
    summary, depths_m = inferred(drive, tmp_path / 'by_tf', *BY_ODOMETRY)
    assert summary['scale_anchor']['topics'] == {'odometry': ODOMETRY}
    said = [one['anchors']['odometry'] for one in summary['per_frame']]
    assert 'the first picture' in said[0]
    assert all(isinstance(one, dict) for one in said[3:])
    last, truth_m = summary['per_frame'][-1], room.frames(FRAMES)[-1].depth_m
    wrong = np.median(np.log(depths_m[-1] / last['anchor_scale'] / truth_m))
    assert abs(np.median(np.log(depths_m[-1] / truth_m))) < 0.5 * abs(wrong)
    by_numbers, _ = inferred(drive, tmp_path / 'by_numbers', *BY_NUMBERS)
    assert by_numbers['per_frame'][-1]['anchor_scale'] == pytest.approx(last['anchor_scale'])


def test_wheels_that_count_twice_the_way_double_the_scale(room, tmp_path):
    logs = []
    for way in (1.0, 2.0):
        drive = write_odometry_bag(tmp_path / f'drive_{way}', room, FRAMES, way=way, tf=False)
        summary, _ = inferred(drive, tmp_path / f'out_{way}', *BY_NUMBERS)
        logs.append(summary['per_frame'][-1]['anchors']['odometry']['log_scale'])
    assert logs[1] - logs[0] == pytest.approx(np.log(2), abs=0.15)


def test_bag_takes_it_as_well_and_tells_of_the_scale(room, tmp_path, capsys):
    drive, out = write_odometry_bag(tmp_path / 'drive', room, 6), tmp_path / 'out'
    assert main(['bag', str(drive), str(out), *BY_ODOMETRY]) == 0
    assert 'scale by odometry: x ' in capsys.readouterr().out
    assert json.loads(custom_data(out)['smoothdino_scale_anchor'])['topics'] == {
        'odometry': ODOMETRY
    }


def test_without_a_way_from_the_base_to_the_camera_the_scale_stays(room, tmp_path):
    drive = write_odometry_bag(tmp_path / 'drive', room, 3, tf=False)
    summary, _ = inferred(drive, tmp_path / 'out', *BY_ODOMETRY)
    assert {one['anchor_scale'] for one in summary['per_frame']} == {1.0}
    assert "no way from 'base' to 'lens'" in summary['per_frame'][-1]['anchors']['odometry']
