# SPDX-License-Identifier: Apache-2.0
"""What an engine is judged by."""

import numpy as np
import pytest
import torch

from benchmarks.engines import EXACT, clip_of, judge
from support.made_clips import write_clip
from support.tiny_networks import tiny_smoothdino
from training.data.clips import find_clips


def test_an_engine_is_judged_by_the_truth_at_its_own_scale_and_the_right_one(tmp_path):
    write_clip(tmp_path / 'clip', range(10, 13))
    (clip,) = find_clips(tmp_path)
    model = tiny_smoothdino()
    scale = model.backbone.trained_camera.scale(clip.focal, height=24, width=32)

    def times(factor: float):
        """An engine that knows the truth, frame by frame, and gives so many times as much."""

        def step(rgb, state):
            number = state or 0
            truth_m = np.nan_to_num(clip.read([number]).depth_m, nan=1)
            return torch.from_numpy(factor * truth_m / scale), number + 1

        return step

    judged = judge({EXACT: times(2), 'half': times(1)}, model, [clip, clip], most=3)
    assert {len(one.off) for one in judged.values()} == {6}
    for name, abs_rel, off in ((EXACT, 1, 0), ('half', 0, 0.5)):
        assert judged[name].abs_rel == pytest.approx([abs_rel] * 6, abs=1e-6)
        assert judged[name].aligned == pytest.approx([0] * 6, abs=1e-6)
        assert judged[name].off == pytest.approx([off] * 6, abs=1e-6)


def test_a_folder_without_depth_is_named(tmp_path):
    write_clip(tmp_path / 'clip', range(3))
    assert clip_of(tmp_path / 'clip').name == 'clip'
    with pytest.raises(SystemExit, match='other: expected pictures with their depth'):
        clip_of(tmp_path / 'other')
