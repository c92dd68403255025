# SPDX-License-Identifier: Apache-2.0
"""A known motion is measured; what has no motion in common is not believed."""

import cv2
import numpy as np
import pytest
import torch

from smoothdino_model.network.backbone import DepthBackbone
from smoothdino_model.network.phase_correlation import (
    LEAST_CONFIDENCE,
    phase_correlate,
    windowed_spectrum,
)
from smoothdino_model.room.sample_room import SampleRoom
from support.tiny_networks import tiny_dpt

SIZE = (240, 300)  # (height, width) of what is correlated; OpenCV pads neither
# (dx, dy) in pixels
SHIFTS = [
    (0.0, 0.0),
    (0.5, -0.5),
    (-2.4, 1.32),
    (7.25, 3.9),
    (-0.07, 12.66),
    (30.5, -21.75),
    (-55.1, 0.33),
    (75.0, 60.0),
    (-74.6, -59.7),
]


def correlate(previous, current):
    """Shifts (B, 2) and confidences (B,) of grey images (B, H, W) or one (H, W)."""
    previous, current = (
        torch.as_tensor(np.asarray(image, np.float32)).reshape(-1, *np.shape(image)[-2:])
        for image in (previous, current)
    )
    return phase_correlate(
        windowed_spectrum(previous), windowed_spectrum(current), width=current.shape[2]
    )


def correlate_by_opencv(previous, current) -> tuple[tuple[float, float], float]:
    window = cv2.createHanningWindow(previous.shape[::-1], cv2.CV_32F)
    shift_px, response = cv2.phaseCorrelate(
        previous.astype(np.float32), current.astype(np.float32), window
    )
    return shift_px, response


def moved(image: np.ndarray, dx: float, dy: float) -> np.ndarray:
    """Move the content of an image (H, W) to the right and down, by fractions of a pixel."""
    frequency_y = np.fft.fftfreq(image.shape[0])[:, None]
    frequency_x = np.fft.rfftfreq(image.shape[1])
    wave = np.exp(-2j * np.pi * (frequency_x * dx + frequency_y * dy))
    return np.fft.irfft2(np.fft.rfft2(image) * wave, s=image.shape)


def middle(image: np.ndarray) -> np.ndarray:
    top, left = ((whole - part) // 2 for whole, part in zip(image.shape, SIZE, strict=True))
    return image[top : top + SIZE[0], left : left + SIZE[1]]


def grey(rgb: np.ndarray) -> np.ndarray:
    return cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY).astype(np.float64)


@pytest.fixture(scope='module')
def rooms() -> list[np.ndarray]:
    """Grey frames (480, 640) of rooms that have nothing in common."""
    return [grey(SampleRoom(seed).frame(0).rgb) for seed in range(4)]


@pytest.fixture(scope='module')
def nyu_pairs(nyu_root) -> tuple[np.ndarray, np.ndarray]:
    """Previous and current grey frames (36, 450, 600).

    The cut takes off the clips' white frame, and gives OpenCV a size that it need not pad to an
    odd one: padded to an odd size, its result is off by half a pixel.
    """
    clips = [
        [read_nyu(nyu_root, scene, i) for i in range(start, start + 13)]
        for scene, start in (
            ('basement_0001a_out', 40),
            ('bedroom_0004_out', 60),
            ('office_0011_out', 20),
        )
    ]
    previous = [image for clip in clips for image in clip[:-1]]
    current = [image for clip in clips for image in clip[1:]]
    return np.stack(previous), np.stack(current)


def read_nyu(nyu_root, scene: str, i: int) -> np.ndarray:
    image = cv2.imread(str(nyu_root / 'nyu2_train' / scene / f'{i}.jpg'), cv2.IMREAD_GRAYSCALE)
    return image[15:-15, 20:-20].astype(np.float32)


@pytest.mark.parametrize('shift_px', SHIFTS, ids=str)
def test_known_shifts_up_to_a_quarter_are_measured(rooms, shift_px):
    for image in rooms[:2]:
        measured_px, confidence = correlate(middle(image), middle(moved(image, *shift_px)))
        np.testing.assert_allclose(measured_px[0], shift_px, atol=0.05)
        assert confidence[0] > LEAST_CONFIDENCE


def test_known_shifts_of_real_frames_are_measured(nyu_root):
    image = read_nyu(nyu_root, 'office_0011_out', 20).astype(np.float64)
    still = np.stack([middle(image)] * len(SHIFTS))
    measured_px, confidence = correlate(
        still, np.stack([middle(moved(image, *shift_px)) for shift_px in SHIFTS])
    )
    np.testing.assert_allclose(measured_px, SHIFTS, atol=0.05)
    assert (confidence > LEAST_CONFIDENCE).all()


def test_odd_sizes_are_measured_too(rooms):
    after = moved(rooms[0], 9.3, -4.6)
    for part in (np.s_[100:321, 100:399], np.s_[100:320, 100:399], np.s_[100:321, 100:398]):
        measured_px, _ = correlate(rooms[0][part], after[part])
        np.testing.assert_allclose(measured_px[0], (9.3, -4.6), atol=0.05)


def test_the_sign_is_opencvs(rooms):
    """To the right and down is positive, from previous to current."""
    previous, current = middle(rooms[0]), middle(moved(rooms[0], 12, -7))
    (dx, dy), _ = correlate_by_opencv(previous, current)
    measured_px, _ = correlate(previous, current)
    np.testing.assert_allclose((dx, dy), (12, -7), atol=0.5)
    np.testing.assert_allclose(measured_px[0], (12, -7), atol=0.05)
    back_px, _ = correlate(current, previous)
    np.testing.assert_allclose(back_px, -measured_px, atol=0.02)


def test_brightness_and_contrast_do_not_matter(rooms):
    after = 40 + 0.5 * moved(rooms[0], 5.5, 2.25)
    measured_px, _ = correlate(middle(rooms[0]), middle(after))
    np.testing.assert_allclose(measured_px[0], (5.5, 2.25), atol=0.05)


def test_a_batch_is_its_single_pairs(rooms):
    previous = np.stack([middle(image) for image in rooms])
    current = np.stack([middle(moved(image, 3.3 * i, -i)) for i, image in enumerate(rooms)])
    shift_px, confidence = correlate(previous, current)
    for i in range(len(rooms)):
        alone_px, alone = correlate(previous[i], current[i])
        np.testing.assert_allclose(shift_px[i], alone_px[0], atol=1e-3)
        np.testing.assert_allclose(confidence[i], alone[0], atol=1e-4)


def test_real_frames_agree_with_opencv(nyu_pairs):
    shift_px, confidence = correlate(*nyu_pairs)
    opencv = [correlate_by_opencv(*pair) for pair in zip(*nyu_pairs, strict=True)]
    opencv_px = np.array([px for px, _ in opencv])
    response = np.array([response for _, response in opencv])
    both = (confidence.numpy() > 0.5) & (response > 0.1)
    assert both.sum() > len(both) / 2
    difference_px = np.linalg.norm(shift_px.numpy() - opencv_px, axis=1)[both]
    assert np.median(difference_px) < 0.5
    assert np.median(np.linalg.norm(shift_px.numpy()[both], axis=1)) > 3  # there is motion


def test_real_pairs_are_mostly_believed(nyu_pairs):
    _, confidence = correlate(*nyu_pairs)
    assert (confidence > 0.5).float().mean() > 0.75


def test_unrelated_real_frames_are_not_believed(nyu_pairs):
    previous, current = nyu_pairs
    _, confidence = correlate(previous, np.roll(current, 12, axis=0))  # of another scene
    assert (confidence < LEAST_CONFIDENCE).all()


@pytest.mark.slow
def test_unrelated_rooms_are_not_believed():
    images = np.stack([middle(grey(SampleRoom(seed).frame(0).rgb)) for seed in range(8)])
    pairs = np.array([(i, j) for i in range(8) for j in range(i)])
    _, confidence = correlate(images[pairs[:, 0]], images[pairs[:, 1]])
    assert confidence.median() < 0.15
    assert (confidence < LEAST_CONFIDENCE).all()  # though rooms share corners and edges


def test_noise_is_not_believed():
    rng = np.random.default_rng(0)
    _, confidence = correlate(*rng.uniform(0, 255, (2, 8, *SIZE)))
    assert (confidence < LEAST_CONFIDENCE).all()


@pytest.mark.parametrize(('before', 'after'), [(0, 0), (128, 128), (30, 220), (255, 255)])
def test_featureless_frames_have_no_shift(before, after):
    shift_px, confidence = correlate(np.full(SIZE, before), np.full(SIZE, after))
    assert confidence[0] < LEAST_CONFIDENCE
    assert shift_px[0].tolist() == [0, 0]


@pytest.mark.parametrize('size', [(480, 640), (75, 98), (241, 301)])
def test_colours_without_features_have_no_shift(size):
    """As the model sees them: grey values that are no whole numbers, and round."""
    backbone = DepthBackbone(tiny_dpt())
    colours = np.random.default_rng(0).integers(256, size=(6, 1, 1, 3), dtype=np.uint8)
    rgb = torch.from_numpy(colours).expand(-1, *size, -1)
    gray = backbone.luma(backbone.preprocess(rgb))
    for current in (gray, gray.roll(1, dims=0)):
        shift_px, confidence = correlate(gray, current)
        assert not shift_px.any()
        assert not confidence.any()


def test_a_featureless_frame_before_a_real_one_has_no_shift(rooms):
    for pair in (
        (np.full(SIZE, 128), middle(rooms[0])),
        (middle(rooms[0]), np.full(SIZE, 128)),
    ):
        shift_px, confidence = correlate(*pair)
        assert confidence[0] < LEAST_CONFIDENCE
        assert shift_px[0].tolist() == [0, 0]


def test_confidence_is_a_share(rooms):
    confidences = [
        correlate(middle(rooms[0]), middle(moved(image, 5, 5)))[1][0] for image in rooms
    ]
    confidences.append(correlate(middle(rooms[0]), middle(rooms[0]))[1][0])
    assert all(0 <= confidence <= 1 for confidence in confidences)
    assert confidences[-1] > 0.9


@pytest.mark.parametrize('size', [(14, 14), (5, 9), (1, 1), (2, 3)])
def test_tiny_frames_do_no_harm(size):
    image = np.random.default_rng(0).uniform(0, 255, size)
    shift_px, confidence = correlate(image, image)
    assert torch.isfinite(shift_px).all()
    assert 0 <= confidence[0] <= 1
