# SPDX-License-Identifier: Apache-2.0
"""Who owns the memory between a device and this machine; that of a GPU is page-locked besides."""

import numpy as np
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from smoothdino_model.engines.host_memory import HostMemory
from smoothdino_model.pipeline import CameraFrame, DepthPipeline
from support.tiny_networks import tiny_smoothdino

CPU = torch.device('cpu')


def picture(seed, height=75, width=98):
    generator = np.random.default_rng(seed)
    return generator.integers(0, 256, (height, width, 3), dtype=np.uint8)


def test_pictures_go_up_as_they_are_in_the_same_memory_again():
    host = HostMemory(CPU)
    large = host.upload([picture(0), picture(1)])
    at = large.data_ptr()
    np.testing.assert_array_equal(large.numpy(), [picture(0), picture(1)])
    for size in ((20, 30), (75, 98), (14, 14)):
        small = host.upload([picture(2, *size)])
        np.testing.assert_array_equal(small.numpy(), [picture(2, *size)])
        assert small.data_ptr() == at


def test_what_comes_down_is_lent_until_the_next_and_only_a_larger_batch_needs_more():
    host = HostMemory(CPU)
    depth_m, motion = torch.rand(2, 9, 7), torch.rand(2, 3)
    first, moved = host.download(depth_m, motion)
    np.testing.assert_array_equal(first, depth_m)
    np.testing.assert_array_equal(moved, motion)
    for size in ((1, 5, 6), (2, 3, 3), (2, 9, 7)):
        (again,) = host.download(torch.rand(size))
        assert np.shares_memory(again, first)
    (larger,) = host.download(torch.rand(2, 10, 10))
    assert not np.shares_memory(larger, first)


def test_whatever_comes_down_comes_in_one_copy():
    class Copies(TorchDispatchMode):
        n = 0

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            self.n += 'copy' in str(func)
            return func(*args, **(kwargs or {}))

    tensors = torch.rand(2, 9, 7), torch.rand(2, 3), torch.ones(4, dtype=torch.int32)
    with Copies() as copies:
        HostMemory(CPU).download(*tensors)
    assert copies.n == 1


def test_depth_is_whose_it_is_given_to():
    """Whoever keeps a depth image keeps nothing else alive, and nobody writes to it."""
    pipeline = DepthPipeline(tiny_smoothdino(), device='cpu', precision='fp32')

    def step(i):
        frames = {
            name: CameraFrame(picture(i + seed), i, focal=focal)
            for seed, (name, focal) in enumerate({'a': None, 'b': None, 'c': 0.8}.items())
        }
        return [result.depth_m for result in pipeline.step(frames).values()]

    kept = step(0)
    before = [depth_m.copy() for depth_m in kept]
    for i in range(1, 4):
        step(i)
    for depth_m, as_given in zip(kept, before, strict=True):
        assert depth_m.base is None
        assert depth_m.flags.owndata
        assert depth_m.flags.writeable
        np.testing.assert_array_equal(depth_m, as_given)
