# SPDX-License-Identifier: Apache-2.0
"""What a command says of a recording that gave less than it holds."""

from __future__ import annotations

import sys
from collections.abc import Sequence


def exit_code(lost: Sequence[str]) -> int:
    """Say every loss, and give the exit code: 0 without any, else 3."""
    for one in lost[:5]:
        print(f'smoothdino: lost: {one}', file=sys.stderr)
    if len(lost) > 5:
        print(f'smoothdino: lost: {len(lost) - 5} more like these', file=sys.stderr)
    return 3 if lost else 0
