# SPDX-License-Identifier: Apache-2.0
"""The model as a stream: at once or frame by frame, its states split, joined and refused."""

import numpy as np
import pytest
import torch

from smoothdino_model.network.backbone import DepthBackbone
from smoothdino_model.network.smoothdino import SmoothDino
from smoothdino_model.network.temporal_state import TemporalState
from smoothdino_model.room.sample_room import SampleRoom
from support.streams import as_batch, clip, pipeline, same, steps
from support.tiny_networks import tiny_dpt, tiny_smoothdino


@torch.inference_mode()
def test_a_stream_encoded_at_once_is_the_stream_frame_by_frame():
    model = tiny_smoothdino()
    frames = clip(5)
    whole = model.see(as_batch(*frames))
    state = state_at_once = None
    for i, frame in enumerate(frames):
        depth_m, state = model(as_batch(frame), state)
        adapted, state_at_once = model.adapt(whole.of(slice(i, i + 1)), state_at_once)
        torch.testing.assert_close(model.backbone.decode(adapted), depth_m, atol=1e-4, rtol=1e-4)
        if i:  # the comparison is worth something
            assert not torch.allclose(depth_m, model.backbone(as_batch(frame)), atol=1e-2)


@torch.inference_mode()
def test_a_state_is_not_changed_by_its_use():
    model = tiny_smoothdino()
    first, second, third = clip(3)
    _, state = model(as_batch(first))
    model(as_batch(third), state)
    depth_m, _ = model(as_batch(second), state)
    _, fresh_state = model(as_batch(first))
    assert torch.equal(depth_m, model(as_batch(second), fresh_state)[0])


@pytest.mark.parametrize('frames', [1, 2])
def test_an_adapter_remembers_as_many_frames_as_its_memory_has(frames):
    first, second, third = clip(3)
    pipe = pipeline(tiny_smoothdino(memory=frames))
    whole = steps(pipe, [first, second, third])[2]
    pipe.reset()
    without_first = steps(pipe, [second, third])[1]
    assert same(whole, without_first) == (frames == 1)


@torch.inference_mode()
def test_states_split_and_join():
    model = tiny_smoothdino()
    a, b = clip(2), clip(2, seed=1)
    _, state = model(as_batch(a[0], b[0]))
    parts = state.split()
    joined = TemporalState.join(parts)
    assert torch.equal(
        model(as_batch(a[1], b[1]), joined)[0], model(as_batch(a[1], b[1]), state)[0]
    )
    assert TemporalState.join([None, None]) is None
    mixed = TemporalState.join([None, parts[1]])
    assert mixed.valid.tolist() == [False, True]


@torch.inference_mode()
def test_the_measured_shift_is_in_pixels_of_the_frame():
    """Also where the network sees the frame at half its size."""
    whole = SampleRoom(0, height=300, width=400, clean=True).frame(0).rgb
    first, second = (whole[10:250, 10:330], whole[6:246, 2:322])  # content moves (8, 4)
    for input_height in (0, 112):
        model = tiny_smoothdino()
        model.backbone.input_height = input_height
        _, state = model(torch.from_numpy(first.copy())[None])
        assert state.shift_px.tolist() == [[0, 0]]
        assert state.confidence.tolist() == [0]
        _, state = model(torch.from_numpy(second.copy())[None], state)
        np.testing.assert_allclose(state.shift_px[0], (8, 4), atol=0.2)
        assert state.confidence[0] > 0.5


@torch.inference_mode()
def test_a_state_of_other_frames_is_refused():
    model = tiny_smoothdino()
    _, state = model(as_batch(clip(1)[0]))
    with pytest.raises(ValueError, match=r'expected frames like .* got 1 of \(70, 98\)'):
        model(as_batch(clip(1, height=70)[0]), state)
    with pytest.raises(ValueError, match='expected frames like'):
        model(as_batch(*clip(2)), state)


@torch.inference_mode()
def test_without_an_adapter_it_is_the_backbone():
    model = SmoothDino(DepthBackbone(tiny_dpt()))
    rgb = as_batch(clip(1)[0])
    depth_m, state = model(rgb)
    assert state is None
    assert torch.equal(depth_m, model.backbone(rgb))
