# SPDX-License-Identifier: Apache-2.0
"""The start of ``smoothdino``, which ``python -m smoothdino_model`` is as well."""

import signal
import sys

from smoothdino_model.engines.process import signals_wait


def main() -> int:
    try:
        with signals_wait(signal.SIGINT):  # a traceback of half an import helps nobody
            from smoothdino_model.cli import main as command_line
    except KeyboardInterrupt:
        print('smoothdino: interrupted', file=sys.stderr)
        return 130
    return command_line.main()


if __name__ == '__main__':
    sys.exit(main())
