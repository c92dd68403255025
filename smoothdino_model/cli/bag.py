# SPDX-License-Identifier: Apache-2.0
"""``smoothdino bag``: a rosbag of images made into one of depth."""

from __future__ import annotations

import argparse
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from smoothdino_model.cli.anchor_arguments import add_anchor_arguments, anchors_of
from smoothdino_model.cli.losses import exit_code
from smoothdino_model.cli.model_arguments import (
    add_camera_arguments,
    add_model_arguments,
    pipeline_of,
)
from smoothdino_model.engines.process import signals_wait
from smoothdino_model.recordings.open import open_recording


def add_to(commands: Any) -> None:
    bag = commands.add_parser('bag', help='a rosbag of images made into one of depth')
    bag.set_defaults(run=run)
    add = bag.add_argument
    add('input', metavar='IN', type=Path, help='rosbag of ROS 1 or ROS 2: a folder or a file')
    add('output', metavar='OUT', type=Path, help='rosbag of ROS 2, a folder not there yet')
    add('--image', metavar='T', help='topic of the images, raw or compressed, if several')
    add('--camera-info', metavar='T', help='its topic; by default the one beside the images')
    add('--storage', default='mcap', choices=('mcap', 'sqlite3'), help='default: %(default)s')
    add('--keep-input', action='store_true', help='copy the images and their camera_info too')
    add('--depth-encoding', default='32FC1', choices=('32FC1', '16UC1'), help='metres or mm')
    add('--min-depth', metavar='M', type=float, default=0.1, help='metres; closer is -Inf or 0')
    add('--max-depth', metavar='M', type=float, default=10.0, help='metres; farther is +Inf or 0')
    add_camera_arguments(bag)
    add_anchor_arguments(bag)
    add_model_arguments(bag)


def run(args: argparse.Namespace) -> int:
    """Write the depth of every frame of a bag as a bag, whole or not at all."""
    with (
        open_recording(
            args.input, topic=args.image, info_topic=args.camera_info, bit_depth=args.bit_depth
        ) as recording,
        anchors_of(args, recording) as anchors,
    ):
        with signals_wait(signal.SIGINT):
            from smoothdino_model.depth_bag import DepthFormat, check_output, write_depth_bag
            from smoothdino_model.recordings.bags import BagRecording

        if not isinstance(recording, BagRecording):
            raise ValueError(f'expected a rosbag, got {args.input}: infer takes it')
        depth_format = DepthFormat(args.depth_encoding, args.min_depth, args.max_depth)
        check_output(args.output)  # before a model is loaded
        pipeline = pipeline_of(args)
        with _deterministic(pipeline.device.type):
            account = write_depth_bag(
                recording,
                args.output,
                pipeline,
                storage=args.storage,
                depth_format=depth_format,
                focal_correction=not args.no_focal_correction,
                anchors=anchors,
                keep_input=args.keep_input,
                custom_data={
                    'smoothdino_model': str(args.model),
                    'smoothdino_adapter': str(args.adapter or 'the one beside the model'),
                    'smoothdino_temporal': str(pipeline.temporal).lower(),
                    'smoothdino_engine': ' '.join(
                        (pipeline.engine, 'on', str(pipeline.device), 'in', pipeline.precision)
                    ),
                    'smoothdino_focal_correction': str(not args.no_focal_correction).lower(),
                },
            )
    print(f'wrote the depth of {account.frames} frames ({account.resets} resets) to {args.output}')
    if anchors:
        print(f'scale by {args.scale_anchor}: {anchors.scale_in_words()}')
    return exit_code(account.lost)


@contextmanager
def _deterministic(device_type: str) -> Iterator[None]:
    """Let a GPU add in the same order in every run, and afterwards as it did before.

    A CPU of as many threads does so anyway. cuBLAS reads its variable of the environment at the
    process's first product and never again: that one stays set.
    """
    if device_type != 'cuda':
        yield
        return
    import torch

    os.environ.setdefault('CUBLAS_WORKSPACE_CONFIG', ':4096:8')
    before = (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
        torch.backends.cudnn.benchmark,
    )
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.backends.cudnn.benchmark = False
    try:
        yield
    finally:
        deterministic, warn_only, torch.backends.cudnn.benchmark = before
        torch.use_deterministic_algorithms(deterministic, warn_only=warn_only)
