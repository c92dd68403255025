# SPDX-License-Identifier: Apache-2.0
"""How far off a model's depth is, and how steady, per frame and with its temporal adapter.

``python -m training.evaluate --model sample-room --source room`` streams frames through the same
pipeline that the node runs and prints a table beside the mean depth map, the score of knowing
nothing but the room's average.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
from tqdm import tqdm

from smoothdino_model.metrics import abs_rel, delta, flicker, log10, mse
from smoothdino_model.pipeline import CameraFrame, DepthPipeline
from training.data.clips import Window
from training.data.nyu import NyuWindows, read_window
from training.data.room import RoomWindows, room_window, unseen_room

_RATE_HZ = 30
_MEAN_MAP_FRAMES = 300
_COLUMNS = ('mse', 'rmse', 'abs_rel', 'log10', 'delta1', 'delta2', 'delta3', 'flicker')


def main(argv: Sequence[str] | None = None) -> None:
    args = _parser().parse_args(argv)
    all_rows = []
    for source in args.source:
        if source == 'room':
            n_clips = args.rooms
            clips = _room_clips(n_clips, args.frames, args.stride, args.size)
            mean_map_m = _room_mean_map(args.size)
        else:
            blocks = NyuWindows(args.root, part='val').blocks
            n_clips = len(blocks)
            clips = (read_window(block).resized(*args.size) for block in blocks)
            mean_map_m = _nyu_mean_map(args.root, args.size)
        rows = evaluate(
            tqdm(clips, total=n_clips, unit='clip', leave=False),
            model=args.model,
            adapter=args.adapter,
            mean_map_m=mean_map_m,
            device=args.device,
        )
        print(_table(rows, title=f'{args.model} on {n_clips} unseen clips of {source}'))
        all_rows += [{'source': source, **row} for row in rows]
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps({'rows': all_rows}, indent=2) + '\n', encoding='utf-8')


def evaluate(
    clips: Iterable[Window],
    *,
    model: str,
    adapter: str | None = None,
    mean_map_m: np.ndarray,
    device: str = 'auto',
) -> list[dict]:
    """Give one row of figures per way of estimating depth, over all clips."""
    pipelines = {
        'per_frame': DepthPipeline.from_pretrained(model, device=device, temporal=False),
        'temporal': DepthPipeline.from_pretrained(model, adapter=adapter, device=device),
    }
    figures: dict[str, list[dict]] = {'mean_map': [], **{name: [] for name in pipelines}}
    for clip in clips:
        truths_m = list(clip.depth_m)
        figures['mean_map'].append(_figures([mean_map_m] * len(truths_m), truths_m))
        for name, pipeline in pipelines.items():
            pipeline.reset()
            depths_m = [
                pipeline.step({'clip': CameraFrame(rgb, stamp_ns=i)})['clip'].depth_m
                for i, rgb in enumerate(clip.rgb)
            ]
            figures[name].append(_figures(depths_m, truths_m))
    return [_row(name, per_clip) for name, per_clip in figures.items()]


def _figures(depths_m: list[np.ndarray], truths_m: list[np.ndarray]) -> dict:
    return {
        'frames': len(truths_m),
        'mse': mse(depths_m, truths_m),
        'abs_rel': abs_rel(depths_m, truths_m),
        'log10': log10(depths_m, truths_m),
        **{f'delta{power}': delta(depths_m, truths_m, power=power) for power in (1, 2, 3)},
        'flicker': flicker(depths_m, truths_m),
    }


def _row(name: str, per_clip: list[dict]) -> dict:
    weights = [clip['frames'] for clip in per_clip]
    means = {
        key: float(np.average([clip[key] for clip in per_clip], weights=weights))
        for key in per_clip[0]
        if key != 'frames'
    }
    return {
        'name': name,
        'scene': 'all',
        'frames': sum(weights),
        'rmse': means['mse'] ** 0.5,
        **means,
    }


def _room_clips(n: int, frames: int, stride: int, size: tuple[int, int]) -> Iterator[Window]:
    for number in range(n):
        room = unseen_room(number, height=size[0], width=size[1])
        yield room_window(room, 0, frames, stride)


def _room_mean_map(size: tuple[int, int]) -> np.ndarray:
    rooms = RoomWindows(height=size[0], width=size[1])
    rng = np.random.default_rng(0)
    drawn = (rooms.window(rng, 1, index=i) for i in range(_MEAN_MAP_FRAMES))
    return np.mean([window.at_trained_focal().depth_m[0] for window in drawn], axis=0)


def _nyu_mean_map(root: str | None, size: tuple[int, int]) -> np.ndarray:
    windows = NyuWindows(root, part='train')
    rng = np.random.default_rng(0)
    drawn = (windows.window(rng, 1, 1).resized(*size) for _ in range(_MEAN_MAP_FRAMES))
    return np.nanmean([window.depth_m[0] for window in drawn], axis=0)


def _table(rows: list[dict], *, title: str) -> str:
    lines = [title, f'{"":10} {"frames":>7}' + ''.join(f'{column:>9}' for column in _COLUMNS)]
    for row in rows:
        figures = ''.join(f'{row[column]:9.4f}' for column in _COLUMNS)
        lines.append(f'{row["name"]:10} {row["frames"]:7}{figures}')
    return '\n'.join(lines)


def _size(text: str) -> tuple[int, int]:
    try:
        height, width = (int(part) for part in text.split('x'))
    except ValueError:
        raise argparse.ArgumentTypeError(f'expected HEIGHTxWIDTH, got {text!r}') from None
    return height, width


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    add = parser.add_argument
    add('--source', choices=('room', 'nyu'), nargs='+', required=True)
    add('--model', default='sample-room', help='as for smoothdino infer')
    add('--adapter', default=None, help='as for smoothdino infer')
    add('--root', default=None, help='folder that holds nyu2_train/ (default: $NYU_ROOT)')
    add('--rooms', type=int, default=16, help='rooms, one clip each')
    add('--frames', type=int, default=40, help='frames of a room clip')
    add('--stride', type=int, default=3, help=f'of the {_RATE_HZ} Hz camera in a room')
    add('--size', type=_size, default=(240, 320), help='of the frames, HEIGHTxWIDTH')
    add('--device', default='auto')
    add('--json', type=Path, default=None, help='write the rows here as well')
    return parser


if __name__ == '__main__':
    main()
