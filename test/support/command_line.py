# SPDX-License-Identifier: Apache-2.0
"""The commands as a user starts them, without a network."""

import os
import sys
from pathlib import Path

COMMAND = [sys.executable, '-m', 'smoothdino_model']
ENVIRONMENT = {
    **os.environ,
    'HF_HUB_OFFLINE': '1',
    'PYTHONPATH': str(Path(__file__).parents[2]),
}
