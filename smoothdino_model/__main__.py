# SPDX-License-Identifier: Apache-2.0
"""``python -m smoothdino_model`` is ``smoothdino``."""

import sys

from smoothdino_model.cli.main import main

if __name__ == '__main__':
    sys.exit(main())
