# SPDX-License-Identifier: Apache-2.0
"""Depth as compressed_depth_image_transport sends it in RVL becomes the distances it was."""

import contextlib
import struct

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest

from smoothdino_model.recordings.depth_images import depth_m_from_compressed
from support.made_depth import rvl


def message(stored, header=bytes(12)):
    height, width = stored.shape
    return header + struct.pack('<II', width, height) + rvl(stored)


def depth_mm(height=37, width=53):
    """Holes, planes, steps and noise, up to the last millimetre."""
    rng = np.random.default_rng(3)
    depth = (1000 + 7 * np.arange(width) + 11 * np.arange(height)[:, None]).astype(np.uint16)
    depth += rng.integers(0, 5, depth.shape).astype(np.uint16)
    depth[rng.random(depth.shape) < 0.1] = 0
    depth[5:9, 10:30] = 0
    depth[20, ::2], depth[20, 1::2] = 65535, 1
    return depth


def test_millimetres_in_rvl_come_back_exactly():
    for stored in (depth_mm(), np.zeros((4, 5), np.uint16), np.full((3, 8), 65535, np.uint16)):
        depth_m = depth_m_from_compressed(message(stored), form='16UC1; compressedDepth rvl')
        expected = np.where(stored, stored * np.float32(0.001), np.nan)
        np.testing.assert_array_equal(depth_m, expected)
        assert depth_m.dtype == np.float32


def test_metres_in_rvl_are_taken_from_the_quantised_inverse():
    a, b = 100.0 * 101, 1 - 1010.0
    metres = np.linspace(0.5, 9, 48, dtype=np.float32).reshape(6, 8)
    stored = np.round(a / metres + b).astype(np.uint16)
    data = message(stored, struct.pack('<iff', 0, a, b))
    depth_m = depth_m_from_compressed(data, form='32FC1; compressedDepth rvl')
    np.testing.assert_allclose(depth_m, metres, rtol=0.01)


@hypothesis.settings(deadline=None, max_examples=200)
@hypothesis.given(st.binary(max_size=80), st.integers(0, 9), st.integers(0, 9), st.integers(0, 99))
def test_no_bytes_give_anything_but_depth_of_its_size_or_a_valueerror(data, width, height, cut):
    whole = bytes(12) + struct.pack('<II', width, height) + data
    for given in (whole, message(depth_mm())[:cut]):
        with contextlib.suppress(ValueError):
            got = depth_m_from_compressed(given, form='16UC1; compressedDepth rvl')
            assert got.shape == (height, width)


def test_rvl_that_breaks_off_or_claims_too_much_is_refused():
    whole = message(depth_mm())
    for broken in (whole[:-40], whole[:200], whole[:20], bytes(14)):
        with pytest.raises(ValueError, match='whole RVL'):
            depth_m_from_compressed(broken, form='16UC1; compressedDepth rvl')
    claims = bytes(12) + struct.pack('<II', 100_000, 100_000) + whole[20:]
    with pytest.raises(ValueError, match='at most'):
        depth_m_from_compressed(claims, form='16UC1; compressedDepth rvl')
