# SPDX-License-Identifier: Apache-2.0
"""Make training clips of rosbags: ``python -m training.extract BAG... --image T --depth T``.

Each bag becomes one clip, as training.data.clips describes them: JPEG pictures, 16-bit depth in
millimetres, and clip.json with stamps and intrinsics. It appears under its name only when it is
whole; broken off, the same command goes on where it stopped and ends with the same files.
"""

from __future__ import annotations

import argparse
import json
import logging
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from smoothdino_model.recordings.bags import BagRecording, Received
from smoothdino_model.recordings.bit_depth import BitDepth
from smoothdino_model.recordings.frames import Intrinsics, RecordingError
from smoothdino_model.whole_files import clear_partial, write_whole
from training.data.bag_frames import (
    camera_of,
    check_view,
    depth_png,
    images_of,
    jpeg_of,
    numbers_of,
    pairs_of,
    size_of,
    stamps_of,
)

_log = logging.getLogger(__name__)

_PLAN = 'plan.json'  # what a broken-off extraction was about to write


def main(argv: Sequence[str] | None = None) -> None:
    logging.basicConfig(level=logging.INFO, format='%(message)s')
    parser = _parser()
    args = parser.parse_args(argv)
    names = Counter(_name(bag) for bag in args.bags)
    twice = [name for name, count in names.items() if count > 1]
    if twice:
        parser.exit(2, f'expected bags of different names, got {twice[0]} twice: rename one\n')
    if not 0 <= args.tolerance_s < 10:
        parser.exit(2, f'expected --tolerance-s from 0 to 10, got {args.tolerance_s}\n')
    try:
        for bag in args.bags:
            extract(
                bag,
                args.output,
                image=args.image,
                depth=args.depth,
                camera_info=args.camera_info,
                tolerance_s=args.tolerance_s,
                bit_depth=args.bit_depth,
            )
    except (ValueError, OSError) as error:
        parser.exit(2, f'{error}\n')


def extract(
    bag: Path,
    output: Path,
    *,
    image: str,
    depth: str,
    camera_info: str | None = None,
    tolerance_s: float = 0.02,
    bit_depth: int = 0,
) -> Path:
    """Write one clip below ``output`` and give its folder.

    A picture and the depth nearest to it in time make a frame if they are within the tolerance of
    each other; what has no partner, is broken or goes back in time is left out and counted. Depth
    of another size but the same view is brought to the picture's size without averaging.
    ``bit_depth`` is that of the camera in pictures of 16 bit, as in :class:`BitDepth`. Raises
    ``ValueError``, in words, where a topic is missing (naming those there are), depth is not
    aligned to the pictures, nothing is left, or a clip of other settings is there already.
    """
    BitDepth(bit_depth)  # before anything is read
    source: dict[str, Any] = {
        'bag': bag.name,
        'image': image,
        'depth': depth,
        'camera_info': camera_info,
        'tolerance_s': tolerance_s,
    }
    if bit_depth:  # not told, it is what the bag's own pictures show
        source['bit_depth'] = bit_depth
    clip = output / _name(bag)
    if clip.exists():
        if _read_json(clip / 'clip.json').get('source') != source:
            raise ValueError(f'{clip} is there already, with other settings: remove it first')
        _log.info('%s is there already', clip)
        return clip
    partial = output / f'.{clip.name}.partial'
    left_out = Counter[str]()
    with (
        closing(BagRecording(bag, image, camera_info, bit_depth=bit_depth)) as pictures,
        closing(BagRecording(bag, depth)) as depths,
        tqdm(total=2 * (len(pictures) + len(depths)), unit='image', disable=None) as bar,
    ):
        image_ns = stamps_of(pictures, bar, left_out)
        pairs = pairs_of(image_ns, stamps_of(depths, bar, left_out), round(tolerance_s * 1e9))
        if not pairs:
            raise RecordingError(
                f'{bag}: expected {image} and {depth} with stamps within {tolerance_s} s of each '
                f'other, got {len(image_ns)} images and no such pair; --tolerance-s widens it'
            )
        left_out['images without depth at their time'] += len(image_ns) - len(pairs)
        numbers = numbers_of([image_ns[i] for i, _ in pairs])
        stamps_ns = dict(zip(numbers, (image_ns[i] for i, _ in pairs), strict=True))
        _enter(partial, {'source': source, 'stamps_ns': _keyed(stamps_ns)})
        places = [dict(zip(of_kind, numbers, strict=True)) for of_kind in zip(*pairs, strict=True)]
        camera = _write_frames(partial, pictures, depths, depth, places, bar, left_out)

    frames = _finish(partial, clip, source=source, camera=camera, stamps_ns=stamps_ns)
    if not frames:
        raise RecordingError(f'{bag}: expected frames that can be read, got none')
    counts = ', '.join(f'{count} {what}' for what, count in left_out.items() if count)
    _log.info('%s: %d frames; left out: %s', clip, frames, counts or 'nothing')
    return clip


def _write_frames(
    partial: Path,
    pictures: BagRecording,
    depths: BagRecording,
    depth: str,
    places: Sequence[dict[int, int]],
    bar: tqdm,
    left_out: Counter[str],
) -> Intrinsics | None:
    """Write pictures and depth, and give the camera of both.

    ``places`` are the numbers of the frames by the places of pictures, and of depth, in the bag.
    """
    size = size_of(pictures, places[0])
    camera = camera_of(pictures, size)
    check_view(camera, camera_of(depths, size), depth)
    jpegs = {place: partial / f'{number}.jpg' for place, number in places[0].items()}
    pngs = {place: partial / f'{number}.png' for place, number in places[1].items()}
    _write_pictures(_wanted(pictures, jpegs, bar), size, left_out)
    _write_depths(_wanted(depths, pngs, bar), size, left_out)
    return camera


def _finish(
    partial: Path,
    clip: Path,
    *,
    source: dict[str, Any],
    camera: Intrinsics | None,
    stamps_ns: dict[int, int],
) -> int:
    """Describe the frames that are whole, give the clip its name, and say how many they are.

    Without any, nothing is done.
    """
    kept = {n: ns for n, ns in stamps_ns.items() if _is_whole(partial, n)}
    if not kept:
        return 0
    described = {
        'source': source,
        'intrinsics': asdict(camera) if camera else None,
        'rate_hz': _rate_hz(list(kept.values())),
        'stamps_ns': _keyed(kept),
    }
    for path in [p for n in stamps_ns.keys() - kept.keys() for p in partial.glob(f'{n}.*')]:
        path.unlink()
    write_whole(partial / 'clip.json', json.dumps(described, indent=1).encode() + b'\n')
    (partial / _PLAN).unlink()
    partial.rename(clip)
    return len(kept)


def _name(bag: Path) -> str:
    return bag.resolve().name if bag.is_dir() else bag.stem


def _enter(partial: Path, plan: dict[str, Any]) -> None:
    """Go on with a broken-off extraction if it is of the same plan, else begin afresh."""
    if _read_json(partial / _PLAN) != plan:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        write_whole(partial / _PLAN, json.dumps(plan).encode())
    clear_partial(partial)


def _wanted(
    recording: BagRecording, files: dict[int, Path], bar: tqdm
) -> Iterator[tuple[Path, Received]]:
    """The images, by their place in the recording, that become files."""
    for place, received in enumerate(images_of(recording)):
        bar.update()
        if place in files:
            yield files[place], received


def _write_pictures(
    wanted: Iterable[tuple[Path, Received]], size: tuple[int, int], left_out: Counter[str]
) -> None:
    for path, received in wanted:
        try:
            rgb = received.rgb()  # also of a file that is there: it may show the camera's bits
        except RecordingError as error:
            _leave_out(left_out, 'broken images', error)
            continue
        if rgb.shape[:2] != size:
            left_out['images of another size than the first'] += 1
            continue
        if not path.exists():
            write_whole(path, jpeg_of(received, rgb))


def _write_depths(
    wanted: Iterable[tuple[Path, Received]], size: tuple[int, int], left_out: Counter[str]
) -> None:
    for path, received in wanted:
        if path.exists():
            continue
        try:
            depth_m = received.depth_m()
        except RecordingError as error:
            _leave_out(left_out, 'broken depth images', error)
            continue
        if not np.isfinite(depth_m).any():
            left_out['depth images without any depth'] += 1
            continue
        write_whole(path, depth_png(depth_m, size, received.topic))


def _leave_out(left_out: Counter[str], what: str, error: RecordingError) -> None:
    if not left_out[what]:  # the first stands for all
        _log.warning('left out: %s', error)
    left_out[what] += 1


def _keyed(stamps_ns: dict[int, int]) -> dict[str, int]:
    return {str(number): ns for number, ns in stamps_ns.items()}


def _is_whole(partial: Path, number: int) -> bool:
    return all((partial / f'{number}{suffix}').exists() for suffix in ('.jpg', '.png'))


def _read_json(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text(encoding='utf-8'))
    except (OSError, ValueError):
        return {}


def _rate_hz(stamps_ns: list[int]) -> float | None:
    return round(1e9 / float(np.median(np.diff(stamps_ns))), 3) if len(stamps_ns) > 1 else None


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add('bags', type=Path, nargs='+', metavar='BAG', help='ROS 2 folder, .mcap, .db3 or .bag')
    add('--image', required=True, help='topic of the pictures, raw or compressed')
    add('--depth', required=True, help='topic of their depth: 32FC1, 16UC1 or compressedDepth')
    add('--camera-info', help='topic (default: camera_info beside the pictures)')
    add('--output', type=Path, required=True, help='folder for the clips, one of each bag')
    add('--tolerance-s', type=float, default=0.02, help='between a picture and its depth')
    add(
        '--bit-depth',
        type=int,
        default=0,
        metavar='N',
        help='bits of the camera in 16-bit pictures, 8 to 16 (default: found from them)',
    )
    return parser


if __name__ == '__main__':
    main()
