# SPDX-License-Identifier: Apache-2.0
"""A camera's own full range is white in 16-bit pictures, in messages, PNGs and files alike."""

import cv2
import numpy as np
import pytest

from smoothdino_model.recordings.bit_depth import BitDepth
from smoothdino_model.recordings.images import (
    rgb_from_bytes,
    rgb_from_compressed,
    rgb_from_file,
)
from smoothdino_model.recordings.open import open_recording


def ramp(bits, height=12, width=64):
    """All of a camera's range, from black to white."""
    row = np.linspace(0, (1 << bits) - 1, width).round().astype(np.uint16)
    return np.tile(row, (height, 1))


def as_message(pixels, bit_depth, encoding='mono16'):
    height, width = pixels.shape[:2]
    step = pixels.nbytes // height
    fields = {'encoding': encoding, 'height': height, 'width': width, 'step': step}
    return rgb_from_bytes(pixels.tobytes(), **fields, is_bigendian=False, bit_depth=bit_depth)


def as_png_message(pixels, bit_depth):
    png = cv2.imencode('.png', pixels)[1]
    return rgb_from_compressed(png, form='mono16; png compressed ', bit_depth=bit_depth)


def as_png_file(pixels, bit_depth):
    return rgb_from_file(cv2.imencode('.png', pixels)[1], bit_depth=bit_depth)


def as_tiff_file(pixels, bit_depth):
    return rgb_from_file(cv2.imencode('.tiff', pixels)[1], bit_depth=bit_depth)


READ = [as_message, as_png_message, as_png_file, as_tiff_file]


@pytest.mark.parametrize('read', READ)
@pytest.mark.parametrize('bits', [8, 10, 12, 14, 16])
def test_the_most_that_a_camera_sends_is_white(bits, read):
    said: list[str] = []
    bit_depth = BitDepth(say=said.append)
    for _ in range(3):
        rgb = read(ramp(bits), bit_depth)
    np.testing.assert_allclose(rgb[0, :, 1], np.linspace(0, 255, 64), atol=1)
    assert bit_depth.bits == bits
    assert len(said) == 1
    assert f'{bits} bits' in said[0]


@pytest.mark.parametrize('read', READ)
def test_what_was_found_is_held_in_the_dark_and_widened_by_light(read):
    said: list[str] = []
    bit_depth = BitDepth(say=said.append)
    assert read(ramp(12), bit_depth).max() == 255
    dark = read(ramp(9), bit_depth)  # an eighth of the range
    assert dark.max() == 31
    assert len(said) == 1
    assert read(ramp(14), bit_depth).max() == 255
    assert read(ramp(12), bit_depth).max() == 63
    assert [bits in text for bits, text in zip(('12 bits', '14 bits'), said, strict=True)] == [
        True,
        True,
    ]


@pytest.mark.parametrize('read', READ)
def test_what_is_told_holds_whatever_comes(read):
    def say(text):
        raise AssertionError(text)

    bit_depth = BitDepth(12, say)
    assert read(ramp(9), bit_depth).max() == 31
    assert read(ramp(16), bit_depth).max() == 255  # and not wrapped
    assert read(ramp(9), bit_depth).max() == 31
    for bits in (-1, 1, 7, 17):
        with pytest.raises(ValueError, match='expected a bit depth of 8 to 16'):
            BitDepth(bits)


def netpbm(kind, white, pixels):
    """(H, W) as a file of one of its kinds: P2 and P3 are text, P3 and P6 have colours."""
    height, width = pixels.shape
    head = f'{kind}\n# 9 by 9\n{width} {height}\n{white}\n'.encode()
    values = np.repeat(pixels.ravel(), 3 if kind in ('P3', 'P6') else 1)
    if kind in ('P2', 'P3'):
        return head + b''.join(b'%d\n' % value for value in values)
    return head + values.astype('>u2' if white > 255 else 'u1').tobytes()


@pytest.mark.parametrize('kind', ['P2', 'P3', 'P5', 'P6'])
@pytest.mark.parametrize('white', [1, 63, 255, 300, 1000, 4095, 65534])
def test_what_a_pgm_or_a_ppm_names_as_white_is_white(white, kind):
    pixels = np.rint(np.linspace(0, white, 64)).astype(np.uint16).reshape(4, 16)
    expected = np.rint(pixels * (255 / white))
    for bit_depth in (None, BitDepth(), BitDepth(8)):
        rgb = rgb_from_file(netpbm(kind, white, pixels), bit_depth=bit_depth)
        np.testing.assert_allclose(rgb, np.repeat(expected[..., None], 3, 2), atol=1)
    # A dark picture of the same camera stays a dark one.
    dark = rgb_from_file(netpbm(kind, white, pixels // 2))
    assert dark.max() == pytest.approx(white // 2 * 255 / white, abs=1)


def test_a_pgm_of_all_16_bits_is_of_the_camera_that_filled_it():
    """OpenCV and others write 65535 whatever the camera's range was."""
    bit_depth = BitDepth()
    assert rgb_from_file(netpbm('P5', 65535, ramp(12)), bit_depth=bit_depth).max() == 255
    assert bit_depth.bits == 12


@pytest.mark.parametrize('order', ['<u2', '>u2'])
@pytest.mark.parametrize('encoding', ['rgb16', 'bgr16', 'rgba16', 'bgra16'])
def test_colours_of_16_bit_are_those_of_8(encoding, order):
    rgb = np.random.default_rng(0).integers(0, 256, (5, 7, 3))
    channels = ['rgba'.index(letter) for letter in encoding[:-2]]
    pixels = (np.dstack([rgb, np.full((5, 7), 9)])[..., channels] * 16 + 15).astype(order)
    got = rgb_from_bytes(
        pixels.tobytes(),
        encoding=encoding,
        height=5,
        width=7,
        step=7 * 2 * len(channels),
        is_bigendian=order == '>u2',
        bit_depth=BitDepth(12),
    )
    np.testing.assert_array_equal(got, rgb)
    assert got.flags.c_contiguous


@pytest.mark.parametrize('order', ['<u2', '>u2'])
@pytest.mark.parametrize(
    ('pattern', 'of_opencv'),
    [
        ('rggb', cv2.COLOR_BayerBG2RGB),  # named by the pixels of the second row and column
        ('bggr', cv2.COLOR_BayerRG2RGB),
        ('gbrg', cv2.COLOR_BayerGR2RGB),
        ('grbg', cv2.COLOR_BayerGB2RGB),
    ],
)
def test_mosaics_of_16_bit_are_those_of_opencv(pattern, of_opencv, order):
    mosaic = np.random.default_rng(1).integers(0, 4096, (20, 30)).astype(np.uint16)
    mosaic[10, 10] = 4095
    got = rgb_from_bytes(
        mosaic.astype(order).tobytes(),
        encoding=f'bayer_{pattern}16',
        height=20,
        width=30,
        step=60,
        is_bigendian=order == '>u2',
        bit_depth=BitDepth(),
    )
    np.testing.assert_allclose(got, cv2.cvtColor(mosaic, of_opencv) / 16, atol=1.5)


def test_a_folder_has_one_range_in_each_pass_and_it_can_be_set(tmp_path, caplog):
    caplog.set_level('INFO')
    for i, bits in enumerate((12, 9)):
        assert cv2.imwrite(str(tmp_path / f'{i}.png'), ramp(bits))
    folder = open_recording(tmp_path)
    for _ in range(2):
        assert [frame.rgb.max() for frame in folder] == [255, 31]
    assert '12 bits' in caplog.text
    assert [f.rgb.max() for f in open_recording(tmp_path, bit_depth=14)] == [63, 7]
    with pytest.raises(ValueError, match='8 to 16'):
        open_recording(tmp_path, bit_depth=20)
