# SPDX-License-Identifier: Apache-2.0
"""What to call the machine that figures were taken on."""

from __future__ import annotations

import platform
import re
from pathlib import Path


def cpu_name() -> str:
    cpuinfo = Path('/proc/cpuinfo')
    names = re.findall(r'model name\s*: (.+)', cpuinfo.read_text()) if cpuinfo.is_file() else []
    return names[0] if names else platform.processor() or platform.machine()
