# SPDX-License-Identifier: Apache-2.0
"""A signal at any point of a start ends node and command line cleanly."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

# Sends the signal when a module begins to be imported, from within whatever imports it.
CODE = """
import importlib.abc, os, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell in the background ignores it
where, number = sys.argv.pop(1), int(sys.argv.pop(1))

class At(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name == where and not sent:
            sent.append(name)
            os.kill(os.getpid(), number)

sent = []
sys.meta_path.insert(0, At())
from {module} import main
code = main()
print('sent', sent)
sys.exit(code)
"""


def ended(module: str, where: str, number: int, *arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, '-c', CODE.format(module=module), where, str(number), *arguments],
        cwd=Path(__file__).parents[2],
        env={**os.environ, 'OMP_NUM_THREADS': '1'},
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.mark.parametrize(
    ('where', 'number'),
    [
        *(('rclpy', number) for number in (signal.SIGINT, signal.SIGTERM)),
        *(('torch', number) for number in (signal.SIGINT, signal.SIGTERM)),
        *(
            (where, signal.SIGINT)
            for where in ('rclpy.lifecycle', 'cv2', 'smoothdino_ros.camera', 'torch._C')
        ),
        *((where, signal.SIGINT) for where in ('transformers', 'smoothdino_model.pipeline')),
    ],
)
def test_a_node_that_is_stopped_while_it_imports(where, number, tiny_model_dir):
    pytest.importorskip('rclpy', reason='needs ROS 2 (rclpy)')
    settings = ('--ros-args', '-p', f'model:={tiny_model_dir}')
    done = ended('smoothdino_ros.start', where, number, *settings)
    assert (done.returncode, done.stdout.strip()) == (0, f"sent ['{where}']"), done.stderr
    assert 'Traceback' not in done.stderr
    assert 'terminate' not in done.stderr


@pytest.mark.parametrize(
    ('command', 'where'),
    [
        *((['info'], where) for where in ('numpy', 'cv2', 'torch', 'torch._C', 'torch.nn')),
        (['info', '--model', 'smoothdino-small'], 'transformers'),
        (['infer', 'docs', '--output', '{out}'], 'torch'),
        (['export', 'smoothdino-small', '--output', '{out}'], 'torch'),
    ],
)
def test_a_command_that_is_interrupted_while_it_imports(command, where, tmp_path):
    out = tmp_path / 'out'
    words = [word.format(out=out) for word in command]
    done = ended('smoothdino_model.__main__', where, signal.SIGINT, *words)
    assert (done.returncode, done.stdout.splitlines()[-1:]) == (130, [f"sent ['{where}']"])
    *_, last = done.stderr.strip().splitlines()
    assert last == 'smoothdino: interrupted'
    assert 'Traceback' not in done.stderr
