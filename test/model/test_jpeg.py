# SPDX-License-Identifier: Apache-2.0
"""A JPEG of which a part never came is no picture, and a whole one is, whoever wrote it."""

import cv2
import numpy as np
import pytest

from smoothdino_model.recordings.images import rgb_from_compressed
from smoothdino_model.recordings.jpeg import header_of

# cv2.IMWRITE_JPEG_SAMPLING_FACTOR and its values, which OpenCV before 4.6 neither has nor heeds.
SAMPLING = 7
SAMPLINGS = {'420': 0x221111, '422': 0x211111, '444': 0x111111}


def scene(height=240, width=320):
    """Structure at several scales, as of a room."""
    rng = np.random.default_rng(5)
    noise = sum(
        cv2.resize(rng.normal(0, 40, (240 // s, 320 // s, 3)), (320, 240)) for s in (4, 40)
    )
    return np.clip(128 + noise, 0, 255).astype(np.uint8)[:height, :width]


def jpeg_of(bgr, *options):
    return cv2.imencode('.jpg', bgr, options)[1].tobytes()


@pytest.mark.parametrize('place', [0.1, 0.5, 0.9])
@pytest.mark.parametrize('size', [40, 400])
@pytest.mark.parametrize('grey', [False, True])
def test_a_hole_of_zeros_is_found(grey, size, place):
    data = bytearray(jpeg_of(scene()[..., 0] if grey else scene()))
    start = header_of(bytes(data)).scan.start
    at = start + int(place * (len(data) - start))
    data[at : at + size] = bytes(size)
    with pytest.raises(
        ValueError, match=r'expected a whole JPEG, got one of .* with a hole of zeros'
    ):
        rgb_from_compressed(bytes(data))


@pytest.mark.parametrize('sampling', SAMPLINGS.values(), ids=SAMPLINGS)
def test_an_interval_between_restart_markers_that_is_missing_is_found(sampling):
    options = (cv2.IMWRITE_JPEG_RST_INTERVAL, 7, SAMPLING, sampling)
    whole = jpeg_of(scene(), *options)
    assert rgb_from_compressed(whole).shape == (240, 320, 3)
    jpeg = header_of(whole)
    assert jpeg.interval == 7
    scan = whole[jpeg.scan]
    marks = [i for i in range(len(scan) - 1) if scan[i] == 0xFF and 0xD0 <= scan[i + 1] <= 0xD7]
    assert len(marks) == (320 // jpeg.block[0] * 240 // jpeg.block[1] - 1) // 7
    for first, after in ((2, 3), (5, 15), (0, 1), (-4, -1)):
        lacking = scan[: marks[first]] + scan[marks[after] :]
        with pytest.raises(ValueError, match='restart markers in turn'):
            rgb_from_compressed(whole[: jpeg.scan.start] + lacking + whole[jpeg.scan.stop :])


@pytest.mark.parametrize('optimize', [0, 1])
@pytest.mark.parametrize('progressive', [0, 1])
@pytest.mark.parametrize('interval', [0, 1, 5])
@pytest.mark.parametrize('sampling', SAMPLINGS.values(), ids=SAMPLINGS)
def test_whole_pictures_are_read_whatever_wrote_them(sampling, interval, progressive, optimize):
    black, white = np.zeros((83, 121, 3), np.uint8), np.full((83, 121, 3), 255, np.uint8)
    lines = np.kron(np.indices((9, 13)).sum(0) % 2, np.ones((9, 9)))[..., None] * white[:1, :1]
    pictures = [scene(83, 121), black, white, lines.astype(np.uint8), scene(8, 8), scene(17, 33)]
    for bgr in [*pictures, *(picture[..., 0] for picture in pictures)]:
        for quality in (1, 50, 100):
            data = jpeg_of(
                bgr,
                *(cv2.IMWRITE_JPEG_QUALITY, quality, cv2.IMWRITE_JPEG_OPTIMIZE, optimize),
                *(cv2.IMWRITE_JPEG_PROGRESSIVE, progressive),
                *(cv2.IMWRITE_JPEG_RST_INTERVAL, interval),
                *(SAMPLING, sampling),
            )
            assert rgb_from_compressed(data).shape[:2] == bgr.shape[:2]


def test_what_cameras_put_around_the_picture_is_no_damage():
    whole = jpeg_of(scene())
    expected = rgb_from_compressed(whole)
    for data in (
        whole + bytes(99),  # behind the end
        whole[:-2] + bytes(99) + whole[-2:],  # before it
        whole[:-2] + b'\xff\xff\xff' + whole[-2:],
        whole[:2] + b'\xff\xe4\x00\x42' + bytes(64) + whole[2:],  # a segment of their own
    ):
        np.testing.assert_array_equal(rgb_from_compressed(data), expected)
