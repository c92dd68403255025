# SPDX-License-Identifier: Apache-2.0
"""Divide clips into frames to train on and frames to judge by.

``python -m training.split --root DIR --by frame|block|scene --output DIR`` writes
``train_list.json`` and ``val_list.json`` as SmoothDINOv2 has them: ``[[scene, i], ...]``, each the
frame i + 1 with the one before.

By frame is what was published: neighbours, which show nearly the same, end up on both sides. By
block keeps stretches of consecutive frames apart, by scene whole clips.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from smoothdino_model.whole_files import written_whole
from training.data.clips import Clip, find_clips
from training.data.runs import clips_by_scene, whole_runs

Entry = tuple[str, int]
_LEAST_ENTRY = 2  # as in the published code, which drops the entries before


def main(argv: Sequence[str] | None = None) -> None:
    parser = _parser()
    args = parser.parse_args(argv)
    try:
        train, val = split(
            find_clips(args.root),
            by=args.by,
            val_share=args.val_share,
            seed=args.seed,
            block=args.block,
            margin=args.margin,
        )
        args.output.mkdir(parents=True, exist_ok=True)
        with (  # both are written before either takes its place
            written_whole(args.output / 'train_list.json') as train_list,
            written_whole(args.output / 'val_list.json') as val_list,
        ):
            train_list.write_text(json.dumps(train) + '\n', encoding='utf-8')
            val_list.write_text(json.dumps(val) + '\n', encoding='utf-8')
    except (ValueError, OSError) as error:
        parser.exit(2, f'{error}\n')
    print(f'{args.output}: {len(train)} pairs of frames to train on, {len(val)} to judge by')


def split(
    clips: list[Clip], *, by: str, val_share: float, seed: int, block: int = 20, margin: int = 3
) -> tuple[list[Entry], list[Entry]]:
    """Give the entries for training and for validation, a share ``val_share`` of all at random.

    ``by`` is 'frame', 'block' (of ``block`` consecutive frames; those within ``margin`` frames of
    the other side's are in neither list) or 'scene'. Raises ``ValueError`` where one would be
    empty.
    """
    if by not in ('frame', 'block', 'scene'):
        raise ValueError(f"expected a split by 'frame', 'block' or 'scene', got {by!r}")
    if not 0 < val_share < 1:
        raise ValueError(f'expected a share for validation between 0 and 1, got {val_share}')
    if block < 2 or margin < 0:
        raise ValueError(f'expected block >= 2 and margin >= 0, got {block} and {margin}')
    groups = _groups(clips, by, block)
    if len(groups) < 2:
        raise ValueError(
            f'expected at least two {by}s to have one on each side, got {len(groups)}: split '
            f'by {"block" if by == "scene" else "frame"} or bring more clips'
        )
    order = np.random.default_rng(seed).permutation(len(groups))
    wanted = val_share * sum(map(len, groups))
    val: set[Entry] = set()
    for number in order[:-1]:  # one is left for training
        if len(val) >= wanted:
            break
        # The last group is taken if that brings the share nearer; the first in any case.
        if val and len(val) + len(groups[number]) / 2 > wanted:
            continue
        val.update(groups[number])
    train = {entry for group in groups for entry in group} - val
    if by == 'block':
        near = {(s, i + d) for s, i in val for d in range(-margin - 1, margin + 2)}
        train -= near  # a pair has a frame more than its number says
    if not train or not val:
        raise ValueError(
            f'expected pairs of frames on both sides, got {len(train)} to train on and {len(val)} '
            'to judge by: choose smaller blocks, a smaller margin or another share'
        )
    return sorted(train), sorted(val)


def _groups(clips: list[Clip], by: str, block: int) -> list[list[Entry]]:
    """Give the entries that have to stay together, for all of these."""
    groups = []
    for scene, clip in sorted(clips_by_scene(clips).items()):
        runs = [
            [(scene, i) for i in clip.numbers[run.start : run.stop - 1] if i >= _LEAST_ENTRY]
            for run in whole_runs([clip])
        ]
        if by == 'scene':
            groups.append([entry for run in runs for entry in run])
        for run in runs if by != 'scene' else []:
            size = block - 1 if by == 'block' else 1  # n frames are n - 1 pairs
            starts = range(0, len(run), block if by == 'block' else 1)
            groups += [run[start : start + size] for start in starts]
    return [group for group in groups if group]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add('--root', type=Path, required=True, help='folder with clips, or with nyu2_train/')
    add('--by', choices=('frame', 'block', 'scene'), required=True)
    add('--val-share', type=float, default=0.2)
    add('--seed', type=int, default=0)
    add('--block', type=int, default=20, help='frames of a block; 200 suit clips of 30 Hz')
    add('--margin', type=int, default=3, help='frames around blocks; 30 suit clips of 30 Hz')
    add('--output', type=Path, required=True, help='folder for train_list.json and val_list.json')
    return parser


if __name__ == '__main__':
    main()
