# SPDX-License-Identifier: Apache-2.0
"""What training takes from rosbags: which images belong together, and how they become files."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Container, Iterator

import cv2
import numpy as np
from tqdm import tqdm

from smoothdino_model.recordings.bags import CAMERA_INFO, COMPRESSED, BagRecording, Received
from smoothdino_model.recordings.frames import Intrinsics, RecordingError
from smoothdino_model.recordings.images import rgb_from_file

_log = logging.getLogger(__name__)

_JPEG_QUALITY = [cv2.IMWRITE_JPEG_QUALITY, 95]
_SAME_VIEW = 0.03  # of the width: what focal lengths and centres of depth and colour may differ


def stamps_of(recording: BagRecording, bar: tqdm, left_out: Counter[str]) -> dict[int, int]:
    """Give the stamp of each image by its place on the topic; none of them goes back."""
    stamps_ns: dict[int, int] = {}
    latest_ns = -1
    for place, received in enumerate(images_of(recording, left_out)):
        bar.update()
        if received.stamp_ns <= latest_ns:
            left_out['images whose stamps go back'] += 1
            continue
        latest_ns = stamps_ns[place] = received.stamp_ns
    return stamps_ns


def images_of(recording: BagRecording, left_out: Counter[str] | None = None) -> Iterator[Received]:
    """The images of a topic, as far as the bag is not damaged."""
    try:
        yield from (r for r in recording.messages() if r.msgtype != CAMERA_INFO)
    except RecordingError as error:
        if left_out is not None:  # it has not been said before
            _log.warning('%s; what comes after it is lost', error)


def pairs_of(
    image_ns: dict[int, int], depth_ns: dict[int, int], tolerance_ns: int
) -> list[tuple[int, int]]:
    """Give the places of images and depth that are each other's nearest in time."""
    if not image_ns or not depth_ns:
        return []
    images, depths = (np.array(list(stamps.values())) for stamps in (image_ns, depth_ns))

    def nearest(of: np.ndarray, among: np.ndarray) -> np.ndarray:
        after = np.searchsorted(among, of).clip(1, max(1, len(among) - 1))
        before = after - 1
        after = after.clip(max=len(among) - 1)
        return np.where(of - among[before] <= among[after] - of, before, after)

    depth_of, image_of = nearest(images, depths), nearest(depths, images)
    mutual = image_of[depth_of] == np.arange(len(images))
    close = np.abs(depths[depth_of] - images) <= tolerance_ns
    image_places, depth_places = list(image_ns), list(depth_ns)
    return [(image_places[i], depth_places[depth_of[i]]) for i in np.flatnonzero(mutual & close)]


def numbers_of(stamps_ns: list[int]) -> list[int]:
    """Number frames from 1 on, leaving out a number for each frame that is missing in time."""
    intervals = np.diff(stamps_ns)
    usual = np.median(intervals) if len(intervals) else 1
    steps = np.maximum(1, np.round(intervals / usual)).astype(int)
    return [1, *(1 + np.cumsum(steps)).tolist()]


def jpeg_of(received: Received, rgb: np.ndarray) -> bytes:
    """A JPEG as it came, without what some cameras put after its end; of others a new one.

    Others are also those that are another picture as a file: mosaics, and what EXIF turns.
    """
    data = bytes(received.message.data) if received.msgtype == COMPRESSED else b''
    if data.startswith(b'\xff\xd8') and np.array_equal(rgb_from_file(data), rgb):
        return data[: data.rindex(b'\xff\xd9') + 2]
    bgr = cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR)
    return cv2.imencode('.jpg', bgr, _JPEG_QUALITY)[1].tobytes()


def size_of(recording: BagRecording, places: Container[int]) -> tuple[int, int]:
    """(height, width) of the first image at one of these places that can be read."""
    for place, received in enumerate(images_of(recording)):
        if place in places:
            try:
                height, width, _ = received.rgb().shape
            except RecordingError:
                continue
            return height, width
    raise RecordingError('expected images that can be read, got none')


def camera_of(recording: BagRecording, size: tuple[int, int]) -> Intrinsics | None:
    """Intrinsics of a topic's first image, None where camera_info gives none; the log says so."""
    return recording.calibrated(next(images_of(recording)), *size).intrinsics


def check_view(colour: Intrinsics | None, depth: Intrinsics | None, topic: str) -> None:
    """Refuse depth seen by another camera than the colours, as far as camera_info tells."""
    if colour is None or depth is None:
        return
    for name in ('fx_px', 'fy_px', 'cx_px', 'cy_px'):
        a, b = getattr(colour, name) / colour.width, getattr(depth, name) / depth.width
        if abs(a - b) > _SAME_VIEW:
            raise RecordingError(
                f'expected depth aligned to the images, got {topic} of a camera whose {name[:2]} '
                f'is {b:.3f} of the width, that of the images {a:.3f}: extract the topic of depth '
                'that the driver aligned to colour'
            )


def depth_png(depth_m: np.ndarray, size: tuple[int, int], topic: str) -> bytes:
    """A PNG of 16 bit in millimetres at the pictures' (height, width), 0 where nothing is known.

    Depth of another size is not averaged. Raises RecordingError where its shape is another.
    """
    height, width = size
    if depth_m.shape != size:
        if abs(depth_m.shape[1] * height / (depth_m.shape[0] * width) - 1) > 0.01:
            raise RecordingError(
                f'expected depth aligned to the images of {width}x{height}, got depth of '
                f'{depth_m.shape[1]}x{depth_m.shape[0]} on {topic}: extract the topic of depth '
                'that the driver aligned to colour'
            )
        depth_m = cv2.resize(depth_m, (width, height), interpolation=cv2.INTER_NEAREST)
    depth_mm = np.nan_to_num(np.round(depth_m * np.float64(1000)), nan=0)
    depth_mm[depth_mm > 65535] = 0  # farther than the file can say
    return cv2.imencode('.png', depth_mm.astype(np.uint16))[1].tobytes()
