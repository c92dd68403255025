# SPDX-License-Identifier: Apache-2.0
"""Pictures in files and compressed messages become their colours, or are refused in words."""

import contextlib
from types import SimpleNamespace

import cv2
import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest

from smoothdino_model.recordings.bit_depth import BitDepth
from smoothdino_model.recordings.image_bytes import MAX_PIXELS
from smoothdino_model.recordings.images import (
    carries_picture,
    rgb_from_compressed,
    rgb_from_file,
)
from support.made_jpegs import with_orientation
from support.made_mosaics import BAYER, MOSAIC_COLOUR, mosaic_of


def picture(height=48, width=64):
    y, x = np.mgrid[:height, :width]
    return np.stack([x * 255 // width, y * 255 // height, 0 * x + 60], 2).astype(np.uint8)


def test_jpeg_and_png_give_the_picture_whatever_their_channels():
    rgb = picture()
    bgr, gray = rgb[..., ::-1], rgb[..., 0]
    alpha = np.dstack([bgr, np.zeros_like(gray)])
    for pixels in (bgr, alpha):
        png = cv2.imencode('.png', pixels)[1].tobytes()
        np.testing.assert_array_equal(rgb_from_compressed(png), rgb)
    jpeg = cv2.imencode('.jpg', bgr, [cv2.IMWRITE_JPEG_QUALITY, 98])[1]
    np.testing.assert_allclose(rgb_from_compressed(jpeg).astype(int), rgb, atol=12)
    grey_png = cv2.imencode('.png', gray)[1]
    np.testing.assert_array_equal(rgb_from_compressed(grey_png), np.dstack([gray] * 3))


@pytest.mark.parametrize('extension', ['.jpg', '.png'])
@pytest.mark.parametrize('pattern', BAYER)
def test_a_mosaic_in_a_compressed_image_is_one_still(pattern, extension):
    mosaic = mosaic_of(pattern, 16, 20)
    data = cv2.imencode(extension, mosaic, [cv2.IMWRITE_JPEG_QUALITY, 100])[1]
    kind = extension[1:].replace('jpg', 'jpeg')
    for form in (
        f'bayer_{pattern}8; {kind} compressed ',
        f'bayer_{pattern}8;{kind} compressed',
        f'bayer_{pattern}8',
    ):
        rgb = rgb_from_compressed(data, form=form)
        np.testing.assert_allclose(rgb, np.broadcast_to(MOSAIC_COLOUR, rgb.shape), atol=5)
    grey = np.repeat(cv2.imdecode(data, cv2.IMREAD_GRAYSCALE)[..., None], 3, 2)
    for form in (
        kind,
        '',
        f'mono8; {kind} compressed ',
        f'bayer_{pattern}8; {kind} compressed mono8',
    ):
        np.testing.assert_array_equal(rgb_from_compressed(data, form=form), grey)
    made = cv2.imencode(extension, picture()[..., ::-1])[1]
    form = f'bayer_{pattern}8; {kind} compressed bgr8'  # a picture that was made of a mosaic
    np.testing.assert_array_equal(
        rgb_from_compressed(made, form=form), rgb_from_compressed(made, form=kind)
    )


def test_a_mosaic_of_16_bit_in_a_png_is_one_still():
    mosaic = 16 * mosaic_of('rggb', 8, 9).astype(np.uint16)  # of a camera of 12 bits
    png = cv2.imencode('.png', mosaic)[1]
    form = 'bayer_rggb16; png compressed '
    rgb = rgb_from_compressed(png, form=form, bit_depth=BitDepth(12))
    np.testing.assert_array_equal(rgb, np.broadcast_to(MOSAIC_COLOUR, rgb.shape))
    with pytest.raises(ValueError, match="expected the encoding 'bayer_rggb16'"):
        rgb_from_compressed(png, form=form.upper())


@pytest.mark.parametrize('orientation', range(1, 9))
def test_exif_turns_files_and_no_topics(orientation):
    rgb = picture()
    plain = cv2.imencode('.jpg', rgb[..., ::-1])[1].tobytes()
    turned = with_orientation(plain, orientation)
    unturned = rgb_from_compressed(plain)
    np.testing.assert_array_equal(
        rgb_from_compressed(turned, form='rgb8; jpeg compressed bgr8'), unturned
    )
    expected = {
        1: unturned,
        2: unturned[:, ::-1],
        3: unturned[::-1, ::-1],
        4: unturned[::-1],
        5: unturned.transpose(1, 0, 2),
        6: unturned.transpose(1, 0, 2)[:, ::-1],
        7: unturned.transpose(1, 0, 2)[::-1, ::-1],
        8: unturned.transpose(1, 0, 2)[::-1],
    }[orientation]
    np.testing.assert_array_equal(rgb_from_file(turned), expected)


def test_what_a_message_says_of_itself_tells_whether_it_is_a_picture():
    for encoding, is_one in (('rgb8', True), ('h264', True), ('16UC1', False), ('8UC3', True)):
        assert carries_picture(SimpleNamespace(encoding=encoding)) == is_one
    for form, is_one in (
        ('jpeg', True),
        ('', True),
        ('rgb8; jpeg compressed bgr8', True),
        ('8UC1; png compressed ', True),
        ('16UC1; png compressed ', False),
        ('32FC1; compressedDepth', False),
        ('; compressedDepth', False),
        ('16UC1;compressedDepth rvl', False),
        ('mono16; compressedDepth png', False),
        ('16UC1', False),
        ('mono8', True),
    ):
        assert carries_picture(SimpleNamespace(format=form)) == is_one


@pytest.mark.parametrize('extension', ['.jpg', '.png'])
@pytest.mark.parametrize('keep', [0, 1, 3, 20, 0.5, 0.95])
def test_a_broken_picture_is_refused_in_words(extension, keep):
    whole = cv2.imencode(extension, picture())[1].tobytes()
    size = keep if isinstance(keep, int) else int(len(whole) * keep)
    with pytest.raises(ValueError, match='expected a whole'):
        rgb_from_compressed(whole[:size])


def test_a_picture_that_claims_too_many_pixels_is_refused_before_decoding():
    png = bytearray(cv2.imencode('.png', picture())[1].tobytes())
    png[16:24] = (20_000).to_bytes(4, 'big') * 2
    jpeg = bytearray(cv2.imencode('.jpg', picture())[1].tobytes())
    frame = jpeg.find(b'\xff\xc0')
    jpeg[frame + 5 : frame + 9] = (50_000).to_bytes(2, 'big') * 2
    for data in (png, jpeg):
        with pytest.raises(ValueError, match=f'at most {MAX_PIXELS} pixels'):
            rgb_from_compressed(data)


@hypothesis.settings(deadline=None, max_examples=300)
@hypothesis.given(
    st.binary(max_size=60), st.sampled_from([b'', b'\xff\xd8', b'\x89PNG\r\n\x1a\n'])
)
def test_no_bytes_give_anything_but_a_picture_or_a_valueerror(data, start):
    with contextlib.suppress(ValueError):
        assert rgb_from_compressed(start + data).ndim == 3
