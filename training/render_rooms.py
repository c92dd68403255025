# SPDX-License-Identifier: Apache-2.0
"""Rooms as clips on disk: ``python -m training.render_rooms OUTPUT --rooms 40``.

A training that keeps features wants pictures that come again; drawing a room anew costs more than
reading it.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from smoothdino_model.room.sample_room import SampleRoom
from smoothdino_model.whole_files import written_whole
from training.data.room import FIRST_UNSEEN_ROOM

_FARTHEST_MM = 65535


def render(
    output: Path, *, rooms: range, frames: int, stride: int, height: int, width: int
) -> None:
    """Write a clip of each of ``rooms`` below ``output``; those that are there stay.

    It has ``frames`` pictures, ``stride`` frames of a 30 Hz camera apart.
    """
    for seed in tqdm(rooms, unit='room'):
        folder = output / f'room_{seed:04d}'
        if folder.is_dir():
            continue
        output.mkdir(parents=True, exist_ok=True)
        room = SampleRoom(seed, height=height, width=width)
        with written_whole(folder) as place:
            place.mkdir()
            for i in range(frames):
                frame = room.frame(i * stride)
                assert frame.depth_m is not None
                depth_mm = np.minimum(np.rint(frame.depth_m * 1000), _FARTHEST_MM)
                cv2.imwrite(str(place / f'{i + 1}.jpg'), frame.rgb[..., ::-1])
                cv2.imwrite(str(place / f'{i + 1}.png'), depth_mm.astype(np.uint16))
            described = {'intrinsics': asdict(room.intrinsics)}
            (place / 'clip.json').write_text(json.dumps(described), encoding='utf-8')


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog='python -m training.render_rooms')
    parser.add_argument('output', type=Path, help='the folder for the clips')
    parser.add_argument('--rooms', type=int, default=40, help='how many (default: 40)')
    parser.add_argument('--first', type=int, default=0, help='number of the first (default: 0)')
    parser.add_argument('--frames', type=int, default=12, help='pictures of each (default: 12)')
    parser.add_argument(
        *('--stride',),
        type=int,
        default=45,  # views that differ
        help='frames of a 30 Hz camera from one picture to the next (default: 45)',
    )
    parser.add_argument('--height', type=int, default=240)
    parser.add_argument('--width', type=int, default=320)
    options = parser.parse_args(argv)
    rooms = range(options.first, options.first + options.rooms)
    if not rooms or rooms.start < 0 or rooms.stop > FIRST_UNSEEN_ROOM:
        parser.error(
            f'--first and --rooms: expected rooms below {FIRST_UNSEEN_ROOM}, those from there on '
            f'are never trained on, got {rooms.start} to {rooms.stop - 1}'
        )
    render(
        options.output,
        rooms=rooms,
        frames=options.frames,
        stride=options.stride,
        height=options.height,
        width=options.width,
    )


if __name__ == '__main__':
    main()
