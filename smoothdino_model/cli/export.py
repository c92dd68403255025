# SPDX-License-Identifier: Apache-2.0
"""``smoothdino export``: the network as an ONNX file."""

from __future__ import annotations

import argparse
import re
import signal
from pathlib import Path
from typing import Any

from smoothdino_model.cli.model_arguments import add_input_height
from smoothdino_model.engines.process import signals_wait


def add_to(commands: Any) -> None:
    export = commands.add_parser('export', help='the network as an ONNX file')
    export.set_defaults(run=run)
    add = export.add_argument
    add(
        'model', metavar='MODEL', help="Hugging Face id, directory or 'smoothdino-small' (bundled)"
    )
    add('--output', metavar='PATH', type=Path, required=True, help='a new folder, or FILE.onnx')
    add('--size', metavar='HxW', default='480x640', help='of the frames; default: %(default)s')
    add('--adapter', metavar='A', help="directory, file, published .pth or 'none'")
    add('--precision', metavar='P', default='fp32', help='fp32 or fp16; default: %(default)s')
    add_input_height(export)


def run(args: argparse.Namespace) -> None:
    size = re.fullmatch(r'([1-9]\d{0,4})[xX]([1-9]\d{0,4})', args.size)
    if size is None:
        raise ValueError(f'--size: expected HEIGHTxWIDTH such as 480x640, got {args.size!r}')
    if args.precision not in ('fp32', 'fp16'):
        raise ValueError(f'--precision: expected fp32 or fp16, got {args.precision!r}')
    with signals_wait(signal.SIGINT):
        from smoothdino_model.engines.choice import set_precision
        from smoothdino_model.engines.onnx_export import export_onnx
        from smoothdino_model.weights.checkpoint import load_model

    model = load_model(args.model, adapter=args.adapter, input_height=args.input_height).eval()
    set_precision(model, args.precision)
    path = export_onnx(model, args.output, size=(int(size[1]), int(size[2])))
    what = 'the network' if model.adapter is None else 'the network with its adapter'
    print(f'wrote {what} for frames of {size[2]}x{size[1]} in {args.precision} to {path}')
