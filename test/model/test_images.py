# SPDX-License-Identifier: Apache-2.0
"""Raw bytes become the colours and distances they stand for."""

import array

import cv2
import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest

from smoothdino_model.recordings.depth_images import depth_m_from_bytes
from smoothdino_model.recordings.image_bytes import UnsupportedEncoding
from smoothdino_model.recordings.images import (
    NoPicture,
    rgb_from_bytes,
    rgb_from_compressed,
)
from support.counted_work import counted_work
from support.made_mosaics import BAYER, MOSAIC_COLOUR, mosaic_of

COLORS = np.array(  # (2, 3, 3) RGB
    [[[255, 0, 0], [0, 255, 0], [0, 0, 255]], [[10, 20, 30], [200, 100, 50], [255, 255, 255]]],
    np.uint8,
)
GRAY = np.array([[0, 1, 127], [128, 254, 255]], np.uint8)
ALPHA = np.full((2, 3, 1), 7, np.uint8)
PACKED = {
    'rgb8': COLORS,
    'bgr8': COLORS[..., ::-1],
    '8UC3': COLORS[..., ::-1],
    '8UC4': np.concatenate([COLORS[..., ::-1], ALPHA], 2),
    'rgba8': np.concatenate([COLORS, ALPHA], 2),
    'bgra8': np.concatenate([COLORS[..., ::-1], ALPHA], 2),
    'mono8': GRAY,
    '8UC1': GRAY,
}


def fields(rows: np.ndarray, padding: int = 0) -> dict:
    """The fields of an Image message from (H, W[, C]) values, padding bytes after each row."""
    height, width = rows.shape[:2]
    packed = np.ascontiguousarray(rows).view(np.uint8).reshape(height, -1)
    padded = np.pad(packed, ((0, 0), (0, padding)), constant_values=99)
    big = rows.dtype.byteorder == '>'
    shape = {'height': height, 'width': width, 'step': padded.shape[1], 'is_bigendian': big}
    return {'data': padded.tobytes(), **shape}


@pytest.mark.parametrize('padding', [0, 1, 13])
@pytest.mark.parametrize('encoding', PACKED)
def test_packed_encodings_give_their_colours(encoding, padding):
    rgb = rgb_from_bytes(encoding=encoding, **fields(PACKED[encoding], padding))
    expected = COLORS if PACKED[encoding].ndim == 3 else np.repeat(GRAY[..., None], 3, 2)
    np.testing.assert_array_equal(rgb, expected)
    assert rgb.dtype == np.uint8
    assert rgb.flags.c_contiguous
    assert rgb.flags.writeable


@pytest.mark.parametrize('order', ['<u2', '>u2'])
def test_mono16_keeps_the_high_byte_in_both_byte_orders(order):
    values = np.array([[0, 255, 256], [0x1234, 0xFF00, 0xFFFF]], order)
    rgb = rgb_from_bytes(encoding='mono16', **fields(values, 2))
    for channel in range(3):
        np.testing.assert_array_equal(rgb[..., channel], [[0, 0, 1], [0x12, 255, 255]])


@pytest.mark.parametrize('encoding', ['yuv422', 'uyvy', 'yuv422_yuy2', 'yuyv'])
def test_yuv422_gives_the_colours_of_bt601(encoding):
    colours = {(81, 90, 240): (255, 0, 0), (145, 54, 34): (0, 255, 0), (41, 240, 110): (0, 0, 255)}
    yuv = [[y, u, y, v] if 'y2' in encoding or encoding == 'yuyv' else [u, y, v, y]
           for y, u, v in colours]  # fmt: skip
    rows = np.array([np.ravel(yuv)] * 2, np.uint8).reshape(2, 6, 2)
    rgb = rgb_from_bytes(encoding=encoding, **fields(rows, 4))
    expected = np.repeat(np.array(list(colours.values())), 2, 0)
    np.testing.assert_allclose(rgb[0].astype(int), expected, atol=3)
    np.testing.assert_array_equal(rgb[0], rgb[1])


@pytest.mark.parametrize('pattern', BAYER)
def test_bayer_patterns_give_the_colour_of_the_mosaic(pattern):
    mosaic = mosaic_of(pattern, 4, 5)
    rgb = rgb_from_bytes(encoding=f'bayer_{pattern}8', **fields(mosaic, 3))
    assert rgb.shape == (8, 10, 3)
    np.testing.assert_array_equal(rgb, np.broadcast_to(MOSAIC_COLOUR, rgb.shape))


def planes_of(rgb, encoding, padding=0):
    """The data of a planar picture and its step, with chroma averaged as OpenCV does it."""
    height, width = rgb.shape[:2]
    if encoding == 'nv24':  # OpenCV converts each colour alone as a picture of 2x2
        blocks = [
            cv2.cvtColor(np.tile(pixel, (2, 2, 1)), cv2.COLOR_RGB2YUV_I420).ravel()[[0, 4, 5]]
            for pixel in rgb.reshape(-1, 1, 1, 3)
        ]
        y, u, v = np.array(blocks).reshape(height, width, 3).transpose(2, 0, 1)
    else:
        i420 = cv2.cvtColor(rgb, cv2.COLOR_RGB2YUV_I420)
        y, chroma = i420[:height], i420[height:].reshape(2, height // 2, width // 2)
        u, v = chroma
    pairs = np.dstack([v, u] if encoding == 'nv21' else [u, v]).reshape(len(u), -1)
    share = pairs.shape[1] // width  # rows of U and V are as long as so many of Y
    rows = [np.pad(y, ((0, 0), (0, padding))), np.pad(pairs, ((0, 0), (0, share * padding)))]
    return b''.join(one.tobytes() for one in rows), width + padding


@pytest.mark.parametrize('padding', [0, 6])
@pytest.mark.parametrize('encoding', ['nv12', 'nv21', 'nv24'])
def test_planes_give_the_colours_that_opencv_put_into_them(encoding, padding):
    rgb = np.kron(np.random.default_rng(2).integers(0, 256, (4, 6, 3)), np.ones((2, 2, 1))).astype(
        np.uint8
    )
    if encoding == 'nv24':  # each pixel has a colour of its own
        rgb = np.random.default_rng(2).integers(0, 256, (8, 12, 3), np.uint8)
    data, step = planes_of(rgb, encoding, padding)
    shape = {'encoding': encoding, 'height': 8, 'width': 12, 'is_bigendian': False}
    got = rgb_from_bytes(data, step=step, **shape)
    np.testing.assert_allclose(got.astype(int), rgb, atol=6)
    assert got.flags.c_contiguous
    if not padding:  # of the whole picture, as some drivers give it
        average = len(data) // 8
        np.testing.assert_array_equal(rgb_from_bytes(data, step=average, **shape), got)
    with pytest.raises(ValueError, match='expected'):
        rgb_from_bytes(data[: len(data) // 2], step=step, **shape)


@pytest.mark.parametrize(
    'encoding', ['16UC1', '32FC1', '64FC1', '16SC1', '32SC2', '8SC1', '32FC3', '16UC3']
)
def test_what_carries_no_picture_is_refused_with_what_to_take_instead(encoding):
    with pytest.raises(NoPicture, match=f"got '{encoding}', .*take the topic of .* image_raw"):
        rgb_from_bytes(encoding=encoding, **fields(COLORS))
    for form in (f'{encoding}; png compressed ', f'{encoding}; compressedDepth rvl'):
        png = cv2.imencode('.png', np.zeros((8, 8), np.uint16))[1]
        with pytest.raises(NoPicture, match='take the topic of'):
            rgb_from_compressed(png, form=form)


@pytest.mark.parametrize('spelt', ['RGB8', 'rgb8 ', ' rgb8', 'Rgb8', 'rgb8\0'])
def test_an_encoding_spelt_otherwise_is_said_and_not_guessed(spelt):
    with pytest.raises(ValueError, match="expected the encoding 'rgb8', got") as caught:
        rgb_from_bytes(encoding=spelt, **fields(COLORS))
    assert not isinstance(caught.value, UnsupportedEncoding)
    with pytest.raises(ValueError, match="expected the encoding '8UC3', got '8uc3'"):
        rgb_from_bytes(encoding='8uc3', **fields(COLORS))
    with pytest.raises(ValueError, match="expected the encoding '16UC1', got '16uc1'"):
        depth_m_from_bytes(encoding='16uc1', **fields(COLORS))


@pytest.mark.parametrize(
    'wrap',
    [
        bytes,
        bytearray,
        memoryview,
        lambda b: array.array('B', b),
        lambda b: np.array(list(b), 'u1'),
    ],
)
def test_every_kind_of_buffer_is_read_and_none_is_shared(wrap):
    given = fields(COLORS)
    given['data'] = wrap(given['data'])
    rgb = rgb_from_bytes(encoding='rgb8', **given)
    np.testing.assert_array_equal(rgb, COLORS)
    rgb[:] = 0
    np.testing.assert_array_equal(rgb_from_bytes(encoding='rgb8', **given), COLORS)


def test_the_padding_of_the_last_row_may_be_missing():
    given = fields(COLORS, 5)
    given['data'] = given['data'][:-5]
    np.testing.assert_array_equal(rgb_from_bytes(encoding='rgb8', **given), COLORS)


@pytest.mark.parametrize(
    'wrong',
    [
        {'height': 0},
        {'width': 0},
        {'height': -2},
        {'width': 3.5},
        {'height': 2**31, 'width': 2**31, 'step': 3 * 2**31},
        {'height': 10**30},
        {'step': 0},
        {'step': 8},
        {'step': 10},
        {'data': b''},
        {'data': fields(COLORS)['data'][:-1]},
        {'data': fields(COLORS)['data'] + b'x'},
        {'data': [1, 2, 3]},
        {'data': None},
        {'data': np.zeros((4, 18), np.uint8)[::2]},
    ],
    ids=str,
)
def test_fields_that_contradict_each_other_are_refused_in_words(wrong):
    with pytest.raises(ValueError, match=r'expected .*, got '):
        rgb_from_bytes(**{'encoding': 'rgb8', **fields(COLORS), **wrong})


def test_a_step_shorter_than_a_row_is_named():
    with pytest.raises(ValueError, match='expected a step of at least 9 bytes for 3 pixels'):
        rgb_from_bytes(**{'encoding': 'rgb8', **fields(COLORS), 'step': 8})


def test_sizes_that_a_conversion_cannot_take_are_refused():
    with pytest.raises(ValueError, match='even width'):
        rgb_from_bytes(encoding='yuv422', **fields(np.zeros((2, 3, 2), np.uint8)))
    with pytest.raises(ValueError, match='3x3'):
        rgb_from_bytes(encoding='bayer_rggb8', **fields(np.zeros((2, 2), np.uint8)))


@pytest.mark.parametrize('read', [rgb_from_bytes, depth_m_from_bytes])
def test_an_unknown_encoding_is_named_beside_the_known_ones(read):
    known = 'mono8' if read is rgb_from_bytes else '16UC1'
    for encoding in ('h264', '', None, ['rgb8']):
        with pytest.raises(UnsupportedEncoding, match=known):
            read(encoding=encoding, **fields(COLORS))


COUNTS = st.one_of(
    st.integers(-2, 40), st.integers(), st.floats(), st.none(), st.sampled_from([2**31, 2**63])
)


@hypothesis.settings(deadline=None, max_examples=400)
@hypothesis.given(
    st.one_of(st.binary(max_size=400), st.none(), st.text(max_size=3)),
    st.sampled_from([*PACKED, 'mono16', 'yuv422', 'yuyv', 'bayer_rggb8', '32FC1', '16UC1', 'x']),
    COUNTS,
    COUNTS,
    COUNTS,
    st.one_of(st.booleans(), st.integers(0, 255)),
)
def test_no_field_gives_anything_but_a_picture_or_a_valueerror(data, encoding, h, w, step, big):
    for read in (rgb_from_bytes, depth_m_from_bytes):
        try:
            got = read(data, encoding=encoding, height=h, width=w, step=step, is_bigendian=big)
        except ValueError:
            continue
        assert got.shape[:2] == (h, w)


@pytest.mark.parametrize('order', ['<', '>'])
def test_depth_is_metres_with_nan_where_nothing_was_measured(order):
    metres = np.array([[0.5, 0, -1, 10], [np.nan, np.inf, -np.inf, 3]], order + 'f4')
    depth_m = depth_m_from_bytes(encoding='32FC1', **fields(metres, 6))
    nan = np.nan
    np.testing.assert_array_equal(depth_m, [[0.5, nan, nan, 10], [nan, nan, nan, 3]])
    millimetres = np.array([[0, 1], [1500, 65535]], order + 'u2')
    depth_m = depth_m_from_bytes(encoding='16UC1', **fields(millimetres, 1))
    np.testing.assert_allclose(depth_m, [[nan, 0.001], [1.5, 65.535]], rtol=1e-6)
    assert depth_m.dtype == np.float32


@pytest.mark.parametrize('encoding', ['rgb8', 'bgr8'])
def test_a_full_hd_frame_takes_a_copy_and_no_more(encoding):
    given = fields(np.zeros((1080, 1920, 3), np.uint8))
    with counted_work() as work:
        rgb = rgb_from_bytes(encoding=encoding, **given)
    assert rgb.nbytes <= work.peak_bytes < 1.01 * rgb.nbytes
    assert work.calls < 50  # and not one for each row
