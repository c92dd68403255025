# SPDX-License-Identifier: Apache-2.0
"""What setup.py gives to setuptools, whoever asks: pip or colcon."""

import functools
import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
PROGRAM = """
import json, runpy, setuptools
setuptools.setup = lambda **given: print(json.dumps(given))
runpy.run_path('setup.py')
"""


@functools.cache
def setup_metadata() -> dict:
    """The keywords of the call of setup(), as setup.py computes them."""
    done = subprocess.run(
        [sys.executable, '-c', PROGRAM], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    if done.returncode:
        raise RuntimeError(done.stderr)
    return json.loads(done.stdout)
