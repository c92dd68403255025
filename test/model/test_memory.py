# SPDX-License-Identifier: Apache-2.0
"""What is remembered comes back where it is seen now, counts as often as it was seen, and ends."""

import pytest
import torch

from smoothdino_model.network.backbone import Content, DepthBackbone, Features
from smoothdino_model.network.memory import blend, recall
from smoothdino_model.network.smoothdino import SmoothDino
from smoothdino_model.network.temporal_state import CameraState, TemporalState
from support.streams import batches
from support.tiny_networks import tiny_depth_anything, tiny_dpt

GRID = (9, 11)
K, CHANNELS = 3, 5


def remembered(seed: int = 0, batch: int = 2) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, K, 1 + GRID[0] * GRID[1], CHANNELS, generator=generator)


def recalled(levels, *, travelled=None, known=None):
    """Give the sum (B, rows, columns, C) of the patches, their count, and the class token."""
    batch = len(levels)
    came = recall(
        [levels],
        torch.ones(batch, K, dtype=torch.bool) if known is None else known,
        torch.zeros(batch, K, 2) if travelled is None else travelled,
        grid=GRID,
        dtype=torch.float32,
    )
    count = came.count[:, 1:].unflatten(1, GRID)
    return came.sums[0][:, 1:].unflatten(1, GRID), count, came.sums[0][:, 0]


def depths(model: SmoothDino, frames: torch.Tensor) -> list[torch.Tensor]:
    state, came = None, []
    with torch.inference_mode():
        for rgb in frames:
            depth_m, state = model(rgb, state)
            came.append(depth_m)
    return came


def test_frames_that_did_not_move_add_up():
    levels = remembered()
    patches, count, class_token = recalled(levels)
    torch.testing.assert_close(patches, levels[:, :, 1:].sum(1).unflatten(1, GRID))
    torch.testing.assert_close(class_token, levels[:, :, 0].sum(1))
    assert (count == K).all()


@pytest.mark.parametrize(('dx', 'dy'), [(2, 0), (0, -1), (-3, 2)])
def test_a_shift_of_whole_patches_rolls_a_frame_and_leaves_what_comes_into_view_uncounted(dx, dy):
    levels = remembered()
    known = torch.tensor([[False, True, False]]).expand(2, -1)
    travelled = torch.zeros(2, K, 2)
    travelled[:, 1] = torch.tensor([float(dx), float(dy)])
    patches, count, _ = recalled(levels, travelled=travelled, known=known)
    seen = torch.zeros(GRID)
    rows, columns = GRID
    seen[max(dy, 0) : rows + min(dy, 0), max(dx, 0) : columns + min(dx, 0)] = 1
    rolled = levels[:, 1, 1:].unflatten(1, GRID).roll((dy, dx), dims=(1, 2))
    torch.testing.assert_close(patches, rolled * seen[..., None])
    assert torch.equal(count[0, ..., 0], seen)


def test_half_a_patch_is_the_mean_of_two():
    levels = remembered()
    travelled = torch.tensor([0.5, 0.0]).expand(2, K, 2)
    patches, _, _ = recalled(levels, travelled=travelled)
    whole = levels[:, :, 1:].sum(1).unflatten(1, GRID)
    torch.testing.assert_close(patches[:, :, 1:], (whole[:, :, 1:] + whole[:, :, :-1]) / 2)


@pytest.mark.parametrize('shift', [(3.4, -2.7), (0.2, 0.1), (40.0, 0.0)])
def test_the_mean_of_what_is_all_the_same_is_the_same(shift):
    """At borders, too, and where nothing that is remembered is in view."""
    size = (GRID[0] * 14, GRID[1] * 14)
    level = torch.arange(1.0, 1 + CHANNELS).expand(1, 1 + GRID[0] * GRID[1], CHANNELS)
    current = Features((level,), GRID, Content(0, 0, *size), size)
    came = recall(
        [level[:, None].expand(-1, K, -1, -1)],
        torch.ones(1, K, dtype=torch.bool),
        torch.tensor(shift).expand(1, K, 2),
        grid=GRID,
        dtype=torch.float32,
    )
    torch.testing.assert_close(blend(current, came).levels[0], level)


def test_what_is_not_known_counts_nothing():
    levels, others = remembered(), remembered(seed=1)
    known = torch.tensor([[True, False, True], [False, False, False]])
    mixed = torch.where(known[..., None, None], levels, others)
    for one, other in zip(
        recalled(levels, known=known), recalled(mixed, known=known), strict=True
    ):
        assert torch.equal(one, other)
    patches, count, class_token = recalled(levels, known=known)
    assert not any(one[1].any() for one in (patches, count, class_token))


@pytest.mark.parametrize('make', [tiny_dpt, tiny_depth_anything])
def test_a_standing_camera_sees_the_mean_of_its_frames(make):
    """With noise in the picture, so that the mean is another than the frame itself."""
    model = SmoothDino(DepthBackbone(make()), memory=K)
    generator = torch.Generator().manual_seed(0)
    noise = torch.randint(-20, 20, (6, 1, 70, 98, 3), generator=generator)
    frames = (batches(1)[0] + noise).clamp(0, 255).to(torch.uint8)
    with torch.inference_mode():
        seen = [model.see(rgb) for rgb in frames]
        state = None
        for t, one in enumerate(seen):
            came, state = model.adapt(one, state)
            last = [s.features.levels for s in seen[max(0, t - K) : t + 1]]
            for level, wanted in zip(came.levels, zip(*last, strict=True), strict=True):
                mean = torch.stack(wanted).mean(0)
                # The shift is measured to a tenth of a pixel, and half precision is kept.
                assert (level - mean).abs().mean() < 0.02 * mean.abs().mean()


def test_what_happened_longer_ago_is_gone_for_good():
    model = SmoothDino(DepthBackbone(tiny_dpt()), memory=K)
    frames, others = batches(2 + K), batches(2, seed=1)
    whole = depths(model, frames)
    late = depths(model, frames[1:])
    other = depths(model, torch.cat((others[:1], frames[1:])))
    assert torch.equal(whole[-1], late[-1])
    assert torch.equal(whole[-1], other[-1])
    assert not torch.equal(whole[-2], late[-2])


def test_memory_starts_with_the_first_frame_and_nothing_before_it():
    backbone = DepthBackbone(tiny_dpt())
    frames = batches(2)
    first, second = depths(SmoothDino(backbone, memory=K), frames)
    with torch.inference_mode():
        assert torch.equal(first, backbone(frames[0]))
        assert not torch.equal(second, backbone(frames[1]))


def test_cameras_in_a_batch_remember_each_for_itself():
    model = SmoothDino(DepthBackbone(tiny_dpt()), memory=K)
    one, other = batches(4), batches(4, seed=1)
    alone = depths(model, one), depths(model, other)
    with torch.inference_mode():
        # The other camera begins two frames later.
        _, state = model(one[0])
        _, state = model(one[1], state)
        states = [CameraState(state, 0), None]
        for t in range(2):
            depth_m, state = model(torch.cat((one[2 + t], other[t])), TemporalState.join(states))
            states = state.split()
            torch.testing.assert_close(depth_m[:1], alone[0][2 + t])
            torch.testing.assert_close(depth_m[1:], alone[1][t])


def test_features_are_kept_in_half_precision_and_as_many_as_asked_for():
    model = SmoothDino(DepthBackbone(tiny_dpt()), memory=K)
    with torch.inference_mode():
        state = None
        for rgb in batches(6):
            _, state = model(rgb, state)
    assert [(level.dtype, level.shape[1]) for level in state.levels] == [(torch.float16, K)] * 4
    assert state.known.all()


def test_fewer_than_no_frames_are_refused():
    with pytest.raises(ValueError, match='memory: expected 0 frames or more, got -1'):
        SmoothDino(DepthBackbone(tiny_dpt()), memory=-1)
