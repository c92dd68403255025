# SPDX-License-Identifier: Apache-2.0
"""``smoothdino download``: a model of the hub into the local cache."""

from __future__ import annotations

import argparse
from typing import Any


def add_to(commands: Any) -> None:
    download = commands.add_parser('download', help='fetch a model into the local cache')
    download.set_defaults(run=run)
    download.add_argument('model', metavar='MODEL', help='Hugging Face id')


def run(args: argparse.Namespace) -> None:
    from smoothdino_model.weights.hub import resolve_model

    directory = resolve_model(args.model)
    print(
        f'{args.model} is in {directory}; for a machine without a network, copy it '
        "('cp -rL', its files are links) and pass the copy as --model"
    )
