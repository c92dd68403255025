# SPDX-License-Identifier: Apache-2.0
"""The arguments that commands share: those of a model, and of the camera that it is shown."""

from __future__ import annotations

import argparse
import signal
from typing import TYPE_CHECKING

from smoothdino_model.engines.process import large_pages, signals_wait, use_threads

if TYPE_CHECKING:
    from smoothdino_model.pipeline import DepthPipeline
    from smoothdino_model.scale.floor import Floor


def add_model_arguments(parser: argparse.ArgumentParser) -> None:
    """What every command that runs a model takes; pipeline_of reads it."""
    add_which_model(parser)
    add = parser.add_argument
    add(
        '--engine',
        metavar='E',
        default='auto',
        help='auto, torch, openvino, onnxruntime or onnxruntime:tensorrt',
    )
    add('--device', metavar='D', default='auto', help='auto, cpu, cuda, cuda:1, ...')
    add('--precision', metavar='P', default='auto', help='auto, fp32, bf16 or fp16')
    add('--threads', metavar='N', type=int, default=0, help='on the CPU; by default one a core')
    add(
        '--memory',
        metavar='K',
        type=int,
        help='frames that depth is steadied over where no adapter is; 0: none (default: 2)',
    )
    add('--no-temporal', action='store_true', help='every frame for itself')
    add_input_height(parser)


def add_which_model(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add('--model', metavar='M', help="Hugging Face id, directory or 'smoothdino-small' (bundled)")
    add('--adapter', metavar='A', help="directory, file, published .pth or 'none'")


def add_camera_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add(
        '--bit-depth',
        metavar='N',
        type=int,
        default=0,
        help='bits of the camera in 16-bit pictures, 8 to 16; by default found from them',
    )
    add('--no-focal-correction', action='store_true', help="depth as the model's own camera sees")


def add_anchor_arguments(parser: argparse.ArgumentParser) -> None:
    """What anchors the scale of depth; floor_of reads it."""
    add = parser.add_argument
    add('--scale-anchor', choices=('floor',), help='take the scale from the floor')
    add('--camera-height', metavar='M', type=float, help='metres from the floor to the lens')
    add('--camera-pitch', metavar='DEG', type=float, default=0.0, help='how far it looks down')
    add('--camera-roll', metavar='DEG', type=float, default=0.0, help='how far it leans right')


def floor_of(args: argparse.Namespace) -> Floor | None:
    """The floor under the camera, None where no anchor is asked for."""
    from smoothdino_model.scale.floor import floor_of_tilt

    if (args.scale_anchor is None) != (args.camera_height is None):
        raise ValueError(
            'expected --scale-anchor floor together with --camera-height, the metres from the '
            'floor to the lens, got only one of them'
        )
    if args.camera_height is None:
        return None
    return floor_of_tilt(args.camera_height, args.camera_pitch, args.camera_roll)


def add_input_height(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        '--input-height',
        metavar='N',
        type=int,
        default=0,
        help="height that the network sees; 0 is the checkpoint's size or else the frame's own",
    )


def pipeline_of(args: argparse.Namespace) -> DepthPipeline:
    with signals_wait(signal.SIGINT):
        from smoothdino_model.pipeline import DepthPipeline
        from smoothdino_model.weights.hub import DEFAULT_MODEL

    large_pages()
    use_threads(args.threads)
    args.model = args.model or DEFAULT_MODEL
    memory = {} if args.memory is None else {'memory': args.memory}
    return DepthPipeline.from_pretrained(
        args.model,
        adapter=args.adapter,
        **memory,
        engine=args.engine,
        device=args.device,
        precision=args.precision,
        temporal=not args.no_temporal,
        input_height=args.input_height,
    )
