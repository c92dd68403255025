# SPDX-License-Identifier: Apache-2.0
"""The command line: ``smoothdino infer``, ``bag``, ``export``, ``info`` and ``download``.

Exit codes: 0 done, 2 an input that cannot be used (one line says why), 3 done with what could be
read of a damaged recording (each loss is said), 130 stopped by Ctrl-C.
"""

from __future__ import annotations

import argparse
import logging
import sys
from typing import NoReturn

# torch and transformers take seconds to import: each command does so when it needs them.
from smoothdino_model.cli import bag, download, export, infer, info
from smoothdino_model.engines.process import sleep_while_waiting

_log = logging.getLogger('smoothdino_model.cli')


def main(argv: list[str] | None = None) -> int:
    """Run one command and give the exit code."""
    sleep_while_waiting()
    args = _parser().parse_args(argv)
    logging.basicConfig(format='smoothdino: %(message)s', level=logging.WARNING)
    level = logging.DEBUG if args.verbose else logging.INFO
    logging.getLogger('smoothdino_model').setLevel(level)
    try:
        return args.run(args) or 0
    except KeyboardInterrupt:
        print('smoothdino: interrupted', file=sys.stderr)
        return 130
    except (ValueError, OSError) as error:
        _log.debug('the error in full:', exc_info=True)
        print(f'smoothdino: error: {" ".join(str(error).split())}', file=sys.stderr)
        return 2


class _Parser(argparse.ArgumentParser):
    """Errors in one line, where argparse prints the whole usage before them."""

    def error(self, message: str) -> NoReturn:
        from smoothdino_model.weights.hub import command

        called = self.prog.replace('smoothdino', command(), 1)
        self.exit(2, f'smoothdino: error: {message} (see {called} --help)\n')


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog='smoothdino', description='Steady metric depth from one camera.')
    parser.add_argument(
        '--verbose', action='store_true', help='also what is for debugging, tracebacks included'
    )
    commands = parser.add_subparsers(required=True, metavar='COMMAND')
    for command in (infer, bag, export, info, download):
        command.add_to(commands)
    return parser
