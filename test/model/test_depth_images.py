# SPDX-License-Identifier: Apache-2.0
"""Depth as compressed_depth_image_transport sends it: read, and written as the plugin does."""

import contextlib
import struct

import cv2
import hypothesis
import hypothesis.extra.numpy as arrays
import hypothesis.strategies as st
import numpy as np
import pytest

from smoothdino_model.recordings.depth_images import (
    compressed_depth,
    depth_bytes,
    depth_m_from_compressed,
)
from smoothdino_model.recordings.rvl import to_rvl
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


@hypothesis.settings(deadline=None, max_examples=200)
@hypothesis.given(
    arrays.arrays(
        np.uint16,
        arrays.array_shapes(min_dims=2, max_dims=2, max_side=40),
        elements=st.sampled_from((0, 1, 999, 1000, 1003, 1004, 1031, 1032, 40000, 65535)),
        fill=st.sampled_from((0, 1000)),
    )
)
def test_rvl_is_the_one_that_its_author_writes(stored):
    assert to_rvl(stored).tobytes() == rvl(stored)


def as_the_plugin_stores(metres: float, depth_max: float, quantization: float = 100.0) -> int:
    """What compressed_depth's codec.cpp does with a pixel of 32FC1, with its default parameters.

    depthQuantA = q (q + 1) and depthQuantB = 1 - A / depth_max; stored is A / depth + B, cut to a
    whole number, where depth < depth_max, else 0. All in 32-bit floats.
    """
    a = np.float32(quantization) * (np.float32(quantization) + np.float32(1))
    b = np.float32(1) - a / np.float32(depth_max)
    return int(a / np.float32(metres) + b) if metres < depth_max else 0


def opened(form: str, data) -> tuple[tuple, np.ndarray]:
    """Header and stored numbers of a message, by OpenCV or, of RVL, by our own reader's way."""
    raw = bytes(data)
    header, picture = struct.unpack('<iff', raw[:12]), raw[12:]
    if form.endswith(' png'):
        return header, cv2.imdecode(np.frombuffer(picture, np.uint8), cv2.IMREAD_UNCHANGED)
    width, height = struct.unpack('<II', picture[:8])
    metres = depth_m_from_compressed(raw, form='16UC1; compressedDepth rvl')
    assert metres.shape == (height, width)
    return header, np.nan_to_num(metres * 1000).round().astype(np.uint16)


RANGE_M = {'min_depth_m': 0.1, 'max_depth_m': 10.0}
KINDS = [('png', 0), ('png', 1), ('png', 9), ('rvl', 0)]


def depth_map(height=48, width=64) -> np.ndarray:
    """Metres over the whole range, with everything in it that is no distance."""
    depth_m = np.random.default_rng(5).uniform(0.16, 9.99, (height, width)).astype(np.float32)
    depth_m[:3, :5] = [
        [np.nan, np.inf, -np.inf, 0.0, -1.0],
        [0.05, 10.0, 10.001, 77.0, 1e-30],
        [9.9999, 0.155, 0.12, 5.0, 1.0],
    ]
    return depth_m


@pytest.mark.parametrize(('kind', 'png_level'), KINDS)
def test_millimetres_go_over_the_link_as_they_are(kind, png_level):
    depth_m = depth_map()
    form, data = compressed_depth(
        depth_m, encoding='16UC1', kind=kind, png_level=png_level, **RANGE_M
    )
    assert form == f'16UC1; compressedDepth {kind}'
    header, stored = opened(form, data)
    assert header == (0, 0.0, 0.0)
    raw = np.frombuffer(depth_bytes(depth_m, encoding='16UC1', **RANGE_M), np.uint16)
    np.testing.assert_array_equal(stored, raw.reshape(depth_m.shape))
    read = depth_m_from_compressed(data, form=form)
    np.testing.assert_array_equal(np.nan_to_num(read * 1000).round(), stored)


@pytest.mark.parametrize('max_depth_m', [3.0, 10.0, 80.0])
@pytest.mark.parametrize(('kind', 'png_level'), KINDS)
def test_metres_go_over_the_link_as_the_plugin_quantises_them(kind, png_level, max_depth_m):
    depth_m = depth_map()
    range_m = {'min_depth_m': 0.1, 'max_depth_m': max_depth_m}
    form, data = compressed_depth(
        depth_m, encoding='32FC1', kind=kind, png_level=png_level, **range_m
    )
    assert form == f'32FC1; compressedDepth {kind}'
    (number, a, b), stored = opened(form, data)
    assert (number, a, b) == (0, 10100.0, np.float32(1) - np.float32(10100 / max_depth_m))
    read = depth_m_from_compressed(data, form=form)
    some = np.isfinite(depth_m) & (depth_m > 0.15)
    wanted = [as_the_plugin_stores(d, max_depth_m) for d in depth_m[some].tolist()]
    np.testing.assert_array_equal(stored[some], wanted)
    assert (stored[~some] == 0).all()  # which the plugin makes anything of
    known = stored > 0
    np.testing.assert_array_equal(np.isfinite(read), known)
    assert known.sum() > 0.2 * known.size
    step_m = read[known] ** 2 / 10100
    assert (read[known] - depth_m[known] >= -1e-3 * step_m).all()
    assert (read[known] - depth_m[known] <= 1.01 * step_m).all()


def test_a_higher_level_of_png_is_smaller_and_rvl_smaller_than_raw():
    y, x = np.mgrid[0:120, 0:160]
    noise = np.random.default_rng(1).normal(0, 0.002, x.shape)
    depth_m = (2 + np.sin(x / 30) + np.cos(y / 20) / 2 + noise).astype(np.float32)
    sizes = [
        len(compressed_depth(depth_m, encoding='16UC1', kind=kind, png_level=level, **RANGE_M)[1])
        for kind, level in KINDS
    ]
    stored, fast, small, rvl_size = sizes
    assert small < fast < stored
    assert rvl_size < 0.6 * stored
