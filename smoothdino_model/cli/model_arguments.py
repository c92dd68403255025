# SPDX-License-Identifier: Apache-2.0
"""The arguments that commands share: those of a model, and of the camera that it is shown."""

from __future__ import annotations

import argparse
import signal
from typing import TYPE_CHECKING

from smoothdino_model.engines.process import large_pages, signals_wait, use_threads

if TYPE_CHECKING:
    from smoothdino_model.pipeline import DepthPipeline


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
