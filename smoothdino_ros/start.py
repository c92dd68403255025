# SPDX-License-Identifier: Apache-2.0
"""The start of ``depth_node``: until all is imported a signal only leaves its mark."""

import signal
import sys

from smoothdino_model.engines.process import signals_wait


def main() -> int:
    try:
        with signals_wait(signal.SIGINT, signal.SIGTERM):
            from smoothdino_ros import depth_node
    except KeyboardInterrupt:
        return 0
    return depth_node.main()


if __name__ == '__main__':
    sys.exit(main())
