# SPDX-License-Identifier: Apache-2.0
"""``python -m smoothdino_ros.demo``."""

import sys

from smoothdino_ros.demo.demo import main

if __name__ == '__main__':
    sys.exit(main())
