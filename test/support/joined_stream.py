# SPDX-License-Identifier: Apache-2.0
"""A stream that cameras join and leave the memory of, in another engine beside PyTorch's."""

from dataclasses import replace

import torch
from torch import Tensor

from smoothdino_model.engines.choice import make_engine
from smoothdino_model.network.smoothdino import SmoothDino
from smoothdino_model.network.temporal_state import CameraState, TemporalState
from support.library_depth import assert_close
from support.streams import as_batch, clip

CPU = torch.device('cpu')
SIZE = {'height': 48, 'width': 64}  # the size of made_recordings.pictures


def known(state: TemporalState) -> list[torch.Tensor]:
    """All that counts of a state: of frames that it does not remember, anything may lie in it."""
    remembered = state.recallable
    levels = [level * remembered[..., None, None] for level in state.levels]
    travelled = state.travelled * remembered[..., None]
    return [*levels, travelled, state.spectrum, state.valid, state.shift_px, state.confidence]


def assert_close_in_half(came: Tensor, expected: Tensor) -> None:
    """Features are kept in half precision: of two sides of a rounding either may come."""
    torch.testing.assert_close(came, expected, rtol=1e-3, atol=1e-3)


@torch.inference_mode()
def assert_as_torch(engine: str, model: SmoothDino) -> None:
    """The second camera comes at the third frame, the first one starts afresh at the fifth."""
    engines = [
        make_engine(model, engine=one, device=CPU, precision='fp32', temporal=True)
        for one in (engine, 'torch')
    ]
    a, b = clip(8, **SIZE), clip(8, seed=1, **SIZE)
    states: list[TemporalState | None] = [None, None]
    for i in range(8):
        rgb = as_batch(a[i]) if i < 2 else as_batch(a[i], b[i])
        depths_m = []
        for k, one in enumerate(engines):
            state = states[k]
            if i == 2:
                state = TemporalState.join([CameraState(state, 0), None])
            elif i == 4 and state is not None:
                state = replace(state, valid=torch.tensor([False, True]))
            depth_m, states[k] = one(rgb, state)
            depths_m.append(depth_m)
        assert_close(*depths_m)
        assert depths_m[1].std() > 0.01
        assert torch.equal(states[0].recallable, states[1].recallable)
        for came, expected in zip(*map(known, states), strict=True):
            assert_close_in_half(came, expected)
        alone_m, _ = engines[0](rgb, None)
        assert torch.allclose(alone_m[0], depths_m[0][0], atol=1e-3) == (i in (0, 4))
