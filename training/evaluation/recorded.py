# SPDX-License-Identifier: Apache-2.0
"""The depth that a node published, as a bag has it, against the true depth in the same bag."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np

from smoothdino_model.recordings.frames import is_of_one_shape
from training.evaluation.measure import Measured, Moment, add

if TYPE_CHECKING:
    from smoothdino_model.recordings.bags import Received

RECORDED = 'recorded'
_MAX_GAP_NS = 1_000_000_000  # as the node's max_gap_s

_log = logging.getLogger(__name__)


def measure_recorded(
    bag: Path, *, depth_topic: str, truth_topic: str, tolerance_s: float
) -> Measured:
    """Measure each depth image that has a truth within the tolerance of its stamp.

    Only pixels count whose depth and truth are both known; ``coverage`` is the share of those with
    a truth that have a depth. Raises ``ValueError``, a ``RecordingError`` where the bag is at
    fault, also where nothing is paired.
    """
    if not 0 <= tolerance_s < 10:
        raise ValueError(f'tolerance_s: expected 0 to 10 s, got {tolerance_s}')
    measured = Measured([RECORDED])
    before: Moment | None = None
    last_ns, unpaired = 0, 0
    pairs = _pairs(bag, depth_topic, truth_topic, round(tolerance_s * 1e9))
    for position, (stamp_ns, depth_m, truth_m) in enumerate(pairs):
        if truth_m is None:
            unpaired += 1
            continue
        if before is None or not 0 < stamp_ns - last_ns <= _MAX_GAP_NS:
            before = None
            measured.starts.append(len(measured.scenes))
        height, width = truth_m.shape
        if not is_of_one_shape(depth_m.shape, truth_m.shape):
            raise ValueError(
                f'{bag}: expected {depth_topic} and {truth_topic} of one shape, got '
                f'{depth_m.shape[1]}x{depth_m.shape[0]} and {width}x{height}: they are not of one '
                'view'
            )
        depth_m = cv2.resize(depth_m, (width, height), interpolation=cv2.INTER_NEAREST)
        has_truth, has_depth = np.isfinite(truth_m), np.isfinite(depth_m)
        both_m = np.where(has_depth, truth_m, np.nan)
        moment = Moment(None, both_m, {RECORDED: depth_m}, {}, None, np.nan)
        add(measured, bag.name, position, moment, before)
        measured.values[RECORDED]['coverage'].append(
            float(has_depth[has_truth].mean()) if has_truth.any() else np.nan
        )
        before, last_ns = moment, stamp_ns
    if not measured.scenes:
        raise ValueError(
            f'{bag}: expected images of {depth_topic} and {truth_topic} with stamps within '
            f'{tolerance_s} s of each other, got none among {unpaired} depth images; '
            'are their clocks the same? --tolerance-s widens what counts as the same moment'
        )
    if unpaired:
        _log.warning('%d depth images of %s have no truth at their stamp', unpaired, depth_topic)
    return measured


def _pairs(
    bag: Path, depth_topic: str, truth_topic: str, tolerance_ns: int
) -> Iterator[tuple[int, np.ndarray, np.ndarray | None]]:
    """Each depth image, its stamp and the truth nearest to it."""
    truths = _depths(bag, truth_topic)
    coming = next(truths, None)
    at_hand: deque = deque()
    for stamp_ns, image in _depths(bag, depth_topic):
        while coming is not None and coming[0] <= stamp_ns + tolerance_ns:
            at_hand.append(coming)
            coming = next(truths, None)
        while at_hand and at_hand[0][0] < stamp_ns - tolerance_ns:
            at_hand.popleft()
        nearest = min(at_hand, key=lambda truth: abs(truth[0] - stamp_ns), default=None)
        if nearest is None:
            yield stamp_ns, image.depth_m(), None
        else:
            yield stamp_ns, image.depth_m(), nearest[1].depth_m()


def _depths(bag: Path, topic: str) -> Iterator[tuple[int, Received]]:
    from smoothdino_model.recordings.bags import BagRecording  # rosbags is for bags only

    with closing(BagRecording(bag, topic)) as recording:
        for received in recording.messages():
            if received.topic == topic:
                yield received.stamp_ns, received
