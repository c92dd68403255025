# SPDX-License-Identifier: Apache-2.0
"""The arguments of what anchors the scale of depth: the node's parameters of these names."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from smoothdino_model.scale.sensors import (
    ANCHORS,
    MESSAGES,
    Mounting,
    anchor_names,
    pose_in_words,
)

if TYPE_CHECKING:
    from smoothdino_model.bag_anchors import BagAnchors
    from smoothdino_model.recordings.frames import Recording


def add_anchor_arguments(parser: argparse.ArgumentParser) -> None:
    """What anchors the scale of depth; anchors_of reads it."""
    add = parser.add_argument_group('anchors of the scale (docs/scale.md)').add_argument
    several = f'{", ".join(ANCHORS)}, or several joined by +'
    add('--scale-anchor', metavar='A', default='none', help=f'take the scale from {several}')
    add('--camera-height', metavar='M', type=float, default=0.0, help='from the floor to the lens')
    add('--camera-pitch', metavar='DEG', type=float, default=0.0, help='how far it looks down')
    add('--camera-roll', metavar='DEG', type=float, default=0.0, help='how far it leans right')
    add('--base-frame', metavar='F', default='', help='on the floor, for height and tilt by TF')
    add('--tilt-by-imu', action='store_true', help='the Imu tells the tilt, not the numbers')
    for name, message in MESSAGES.items():
        kind = message.rpartition('/')[2]
        add(f'--{name}', metavar='T', help=f'topic of the {kind}, if several')
        add(
            f'--{name}-pose',
            metavar='P',
            default='',
            help='where it (of odometry: its child frame) is from the camera (x y z roll pitch '
            'yaw); by default TF tells',
        )


@contextmanager
def anchors_of(args: argparse.Namespace, recording: Recording) -> Iterator[BagAnchors | None]:
    """What anchors the frames of a bag, None where nothing is asked for; closed at the end."""
    names = _checked(args)
    if not names:
        yield None
        return
    if recording.kind != 'bag':
        raise ValueError(
            f'expected a bag with camera_info for --scale-anchor {args.scale_anchor}, got a '
            f'{recording.kind}, which tells no focal length: leave the anchor out'
        )
    from smoothdino_model.bag_anchors import BagAnchors

    mounting = Mounting(
        args.camera_height,
        args.camera_pitch,
        args.camera_roll,
        args.base_frame,
        args.tilt_by_imu,
        {name: pose for name in MESSAGES if (pose := _pose(args, name))},
    )
    topics = {name: getattr(args, name) for name in MESSAGES}
    anchors = BagAnchors(args.input, names, mounting, topics)
    try:
        yield anchors
    finally:
        anchors.close()


def _checked(args: argparse.Namespace) -> tuple[str, ...]:
    """The names of the anchors. Raises ValueError where what is given does not fit them."""
    from smoothdino_model.scale.floor import floor_of_tilt

    try:
        names = anchor_names(args.scale_anchor)
    except ValueError as error:
        raise ValueError(f'--scale-anchor: {error}') from None
    floor = bool(args.camera_height or args.base_frame)
    if floor != ('floor' in names):
        raise ValueError(
            'expected --scale-anchor floor together with --camera-height, the metres from the '
            'floor to the lens, or --base-frame, got only one of them'
        )
    if args.tilt_by_imu and (not args.camera_height or args.base_frame):
        raise ValueError(
            'expected --tilt-by-imu together with --camera-height and without --base-frame, from '
            'which TF tells the tilt'
        )
    used = (*names, 'imu') if args.tilt_by_imu else names
    for name in MESSAGES:
        if name not in used and (getattr(args, name) or _pose(args, name)):
            needed = '--tilt-by-imu' if name == 'imu' else f'--scale-anchor {name}'
            raise ValueError(
                f'expected {needed} together with --{name} and --{name}-pose, got these alone'
            )
    if args.camera_height:
        floor_of_tilt(args.camera_height, args.camera_pitch, args.camera_roll)
    return names


def _pose(args: argparse.Namespace, name: str) -> tuple[float, ...]:
    try:
        return pose_in_words(getattr(args, f'{name}_pose'))
    except ValueError as error:
        raise ValueError(f'--{name}-pose: {error}') from None
