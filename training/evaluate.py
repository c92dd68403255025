# SPDX-License-Identifier: Apache-2.0
"""How far off depth is, and how steady: plain per frame, and with any number of adapters.

``python -m training.evaluate --source room nyu --model smoothdino-small`` streams frames through
the model once, and through each adapter or memory, and prints a table beside the mean depth map,
the score of knowing nothing but the average. ``--source bag`` judges what a node published
instead.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

from smoothdino_model.engines.process import large_pages
from smoothdino_model.network.memory import FRAMES
from smoothdino_model.recordings.bit_depth import BitDepth
from smoothdino_model.whole_files import write_whole
from training.evaluation import stretches
from training.evaluation.anchored import Anchored
from training.evaluation.gaps import gap_table, gaps
from training.evaluation.intervals import rows
from training.evaluation.measure import Measured, measure
from training.evaluation.methods import Methods, named_adapters
from training.evaluation.plots import SCENES, write_plots
from training.evaluation.recorded import measure_recorded
from training.evaluation.stretches import Source
from training.evaluation.table import table

_SIZE = (240, 320)  # of rooms and NYUv2
FLOORS = Path(__file__).parent / 'configs' / 'clip_floors.json'


def main(argv: Sequence[str] | None = None) -> None:
    large_pages()
    parser = _parser()
    args = parser.parse_args(argv)
    try:
        _evaluate(args)
    except ValueError as error:  # what was expected and what came, in words
        parser.exit(1, f'{parser.prog}: {error}\n')


def _evaluate(args: argparse.Namespace) -> None:
    BitDepth(args.bit_depth)  # before anything is read
    all_rows, all_gaps = [], []
    for source in args.source:
        if source == 'bag':
            measured, title = _measured_bag(args)
        else:
            measured, title = _measured(source, args)
        of_source = rows(measured, block=args.block)
        print(table(of_source, title=title), end='\n\n')
        all_rows += [{'source': source, **row} for row in of_source]
        if measured.anchored:
            of_anchors = gaps(measured)
            print(gap_table(of_anchors), end='\n\n')
            all_gaps += [{'source': source, **row} for row in of_anchors]
        if args.plots:
            written = write_plots(measured, args.plots, source=source)
            print(f'{len(written)} pictures in {args.plots}')
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        figures = {'rows': all_rows, 'anchors': all_gaps}
        write_whole(args.json, (json.dumps(figures, indent=2) + '\n').encode())


def _measured(kind: str, args: argparse.Namespace) -> tuple[Measured, str]:
    anchored = Anchored(args.scale_anchor, args.scan_height)  # refused before anything is read
    adapters = named_adapters(args.model, args.adapter)
    methods = Methods(
        args.model,
        adapters,
        memories=args.memory or ([] if adapters else [FRAMES]),
        device=args.device,
        precision=args.precision,
        input_height=args.input_height,
    )
    source = _source(kind, args)
    measured = measure(
        tqdm(source.stretches, unit='clip', leave=False),
        methods,
        mean_map_m=source.mean_map_m,
        pictured_scenes=SCENES if args.plots else 0,
        anchored=anchored,
    )
    return measured, f'{args.model} on {len(source.stretches)} clips of {kind}'


def _source(kind: str, args: argparse.Namespace) -> Source:
    size = args.size or _SIZE
    if kind == 'room':
        return stretches.rooms(
            *(args.rooms,),
            frames=args.frames,
            stride=args.stride,
            size=size,
            any_mount=args.any_mount,
        )
    if kind == 'nyu':
        root = args.root or os.environ.get('NYU_ROOT')
        if not root:
            raise ValueError('expected the folder that holds nyu2_train/: --root or NYU_ROOT')
        return stretches.nyu(root, split=args.split, size=size, rim_px=args.rim_px)
    root = args.root or os.environ.get('CLIPS_ROOT')
    if not root:
        raise ValueError('expected the folder that holds the clips: --root or CLIPS_ROOT')
    return stretches.clips(
        root,
        split=args.split,
        size=args.size,
        names=args.clips,
        bit_depth=args.bit_depth,
        floors=args.floors,
    )


def _measured_bag(args: argparse.Namespace) -> tuple[Measured, str]:
    if not (args.root and args.depth_topic and args.truth_topic):
        raise ValueError(
            'expected for --source bag: --root BAG --depth-topic TOPIC --truth-topic TOPIC'
        )
    measured = measure_recorded(
        Path(args.root),
        depth_topic=args.depth_topic,
        truth_topic=args.truth_topic,
        tolerance_s=args.tolerance_s,
    )
    return measured, f'{args.depth_topic} against {args.truth_topic} in {args.root}'


def _size(text: str) -> tuple[int, int]:
    try:
        height, width = (int(part) for part in text.split('x'))
    except ValueError:
        raise argparse.ArgumentTypeError(f'expected HEIGHTxWIDTH, got {text!r}') from None
    return height, width


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f'expected a whole number above 0, got {text}')
    return int(text)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog='python -m training.evaluate', description=__doc__.split('\n')[0]
    )
    add = parser.add_argument
    add('--source', choices=('nyu', 'clips', 'room', 'bag'), nargs='+', required=True)
    add(
        '--root',
        help='of clips (default: $CLIPS_ROOT), of nyu2_train/ (default: $NYU_ROOT), or the bag',
    )
    add('--model', default='smoothdino-small', help='as for smoothdino infer')
    add(
        *('--adapter',),
        nargs='+',
        default=[],
        metavar='[NAME=]ADAPTER',
        help='any number, each as for smoothdino infer (default: the one beside the model)',
    )
    add(
        '--memory',
        type=int,
        nargs='+',
        default=[],
        metavar='K',
        help='memories of so many frames without an adapter (default: 2 where there is none)',
    )
    add('--split', type=Path, help='evaluate what this split file lists: val_list.json')
    add('--size', type=_size, help='of the frames, HEIGHTxWIDTH (240x320; clips: their own)')
    add('--block', type=int, default=40, help='frames of a block that intervals are drawn from')
    add('--device', default='auto')
    add('--precision', default='fp32', help='fp32, bf16 or fp16, whatever the device')
    add(
        '--input-height',
        type=int,
        default=0,
        help="pixels the network sees (default: the model's own)",
    )
    add(
        '--scale-anchor',
        nargs='+',
        default=[],
        metavar='ANCHOR',
        help='anchor the scale of steadied depth as well: floor, scan, odometry, true-floor, '
        'or some by a +',
    )
    add(
        '--scan-height',
        type=float,
        metavar='M',
        help='of a level scan over the floor (default: one on the camera, of its middle row)',
    )
    add('--json', type=Path, help='write the rows here as well')
    add('--plots', type=Path, metavar='DIR', help='write plots and strips of pictures here')
    add('--rim-px', type=int, default=0, help='of --source nyu, whose rim is white: cut off (0)')
    of_clips = parser.add_argument_group('--source clips').add_argument
    of_clips(
        *('--clips',),
        nargs='+',
        default=['*'],
        metavar='PATTERN',
        help="only those of these names: '*kitchen*' (default: all)",
    )
    of_clips(
        *('--bit-depth',),
        type=int,
        default=0,
        metavar='N',
        help='bits of the camera in 16-bit pictures, 8 to 16 (default: found from each clip)',
    )
    of_clips(
        '--floors',
        type=Path,
        default=FLOORS,
        help='file with the floors of clips whose clip.json does not tell them',
    )
    room = parser.add_argument_group('--source room').add_argument
    room('--rooms', type=_count, default=16, help='rooms, one clip each')
    room('--frames', type=_count, default=40, help='frames of a clip')
    room('--stride', type=_count, default=3, help='frames of a 30 Hz camera from one to the next')
    room(
        '--any-mount',
        action='store_true',
        help='cameras 0.2 to 1.8 m over the floor, from 30 degrees down to 20 up',
    )
    bag = parser.add_argument_group('--source bag').add_argument
    bag('--depth-topic', help='32FC1 or 16UC1, as published: /depth/image')
    bag('--truth-topic', help='the true depth')
    bag('--tolerance-s', type=float, default=0.02, help='between the stamps of one moment')
    return parser


if __name__ == '__main__':
    main()
