# SPDX-License-Identifier: Apache-2.0
"""What to call the machine that figures were taken on."""

from __future__ import annotations

import platform
import re
from pathlib import Path

import torch


def cpu_name() -> str:
    cpuinfo = Path('/proc/cpuinfo')
    names = re.findall(r'model name\s*: (.+)', cpuinfo.read_text()) if cpuinfo.is_file() else []
    return names[0] if names else platform.processor() or platform.machine()


def machine(device: torch.device) -> str:
    """The GPU, if it is one, the CPU and how torch uses it."""
    threads, kind = torch.get_num_threads(), torch.backends.cpu.get_cpu_capability()
    cpu = f'{cpu_name()}, {threads} threads, {kind}'
    gpu = f'{torch.cuda.get_device_name(device)}; ' if device.type == 'cuda' else ''
    return f'{gpu}{cpu}; torch {torch.__version__}'
