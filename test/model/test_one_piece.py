# SPDX-License-Identifier: Apache-2.0
"""A state in one piece is what it was in many, and small beside what a frame moves."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from smoothdino_model.engines.choice import set_precision
from smoothdino_model.engines.one_piece import in_one_piece, parts_of
from smoothdino_model.weights.checkpoint import load_model


@pytest.mark.parametrize('seed', range(5))
def test_what_is_put_in_one_piece_comes_out_of_it(seed):
    generator = torch.Generator().manual_seed(seed)
    types = [
        torch.float16,
        torch.bool,
        torch.complex64,
        torch.float32,
        torch.uint8,
        torch.bfloat16,
    ]
    tensors = []
    for dtype in types * 3:
        shape = torch.randint(0, 6, (3,), generator=generator).tolist()
        tensors.append((torch.randn(shape, generator=generator) * 50).abs().to(dtype))
    tensors[0] = tensors[0].transpose(0, 2)
    piece = in_one_piece(tensors)
    for came, expected in zip(parts_of(piece, tensors), tensors, strict=True):
        assert came.dtype == expected.dtype
        assert torch.equal(came, expected)
        assert came.data_ptr() % came.element_size() == 0
        assert came.untyped_storage().data_ptr() == piece.data_ptr()


class Moved(TorchDispatchMode):
    """Adds up the bytes that the operations of its block read and write."""

    n_bytes = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        came = func(*args, **(kwargs or {}))
        if not func.is_view:
            tensors = [t for t in tree_leaves((args, kwargs, came)) if isinstance(t, torch.Tensor)]
            self.n_bytes += sum(one.nbytes for one in tensors)
        return came


@torch.inference_mode()
@pytest.mark.parametrize('cameras', [1, 4])
def test_the_copies_of_a_state_move_less_than_a_twentieth_of_what_a_frame_does(cameras):
    model = load_model('smoothdino-small').eval().to('meta')
    set_precision(model, 'bf16')
    rgb = torch.zeros(cameras, 480, 640, 3, dtype=torch.uint8, device='meta')
    _, state = model(rgb, None)
    model(rgb, state)
    with Moved() as frame:
        _, state = model(rgb, state)
    with Moved() as copies:
        in_one_piece(state.tensors).clone()
    assert copies.n_bytes < frame.n_bytes / 20
