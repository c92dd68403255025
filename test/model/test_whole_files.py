# SPDX-License-Identifier: Apache-2.0
"""What is written whole appears at once or not at all."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from smoothdino_model.whole_files import clear_partial, written_whole

# Writes one file after the other, as fast as it can; its name tells what is in it.
WRITER = """
import itertools, pathlib, sys
from smoothdino_model.whole_files import written_whole

for i in itertools.count():
    with written_whole(pathlib.Path(sys.argv[1]) / str(i)) as place:
        place.write_text(str(i) * 5000)
"""

# Writes one file in a process of its own for each step of Python's, and is interrupted there as by
# Ctrl-C: that becomes an exception between two steps.
INTERRUPTED = """
import contextlib, itertools, os, pathlib, sys
from smoothdino_model import whole_files

FOLLOWED = {whole_files.__file__, contextlib.__file__, '<string>'}

def write(path, step):
    def trace(frame, event, argument):
        nonlocal step
        if frame.f_code.co_filename not in FOLLOWED:
            return None
        frame.f_trace_opcodes = True
        step -= 1
        if step == 0:
            raise KeyboardInterrupt
        return trace

    path.write_text('old')
    sys.settrace(trace)
    with whole_files.written_whole(path) as place:
        place.write_text('new')
    sys.settrace(None)

for step in itertools.count(1):
    folder = pathlib.Path(sys.argv[1]) / str(step)
    folder.mkdir()
    process = os.fork()
    if process == 0:
        os.close(2)
        write(folder / 'file', step)
        break
    if os.waitpid(process, 0)[1] == 0:
        print(step)
        break
"""


def test_a_file_and_a_folder_take_their_names_when_the_block_ends(tmp_path):
    for name in ('file', 'folder'):
        with written_whole(tmp_path / name) as place:
            assert place.name == name  # what is named after itself can be so inside
            if name == 'folder':
                place.mkdir()
                (place / 'inside').write_text('new')
            else:
                place.write_text('new')
            assert not (tmp_path / name).exists()
    assert (tmp_path / 'file').read_text() == (tmp_path / 'folder' / 'inside').read_text() == 'new'
    assert sorted(path.name for path in tmp_path.iterdir()) == ['file', 'folder']


def test_a_file_is_replaced_and_a_folder_with_something_in_it_is_not(tmp_path):
    (tmp_path / 'file').write_text('old')
    (tmp_path / 'folder').mkdir()
    (tmp_path / 'folder' / 'inside').write_text('old')
    with written_whole(tmp_path / 'file') as place:
        place.write_text('new')
        assert (tmp_path / 'file').read_text() == 'old'
    assert (tmp_path / 'file').read_text() == 'new'
    with pytest.raises(OSError, match='folder'), written_whole(tmp_path / 'folder') as place:
        place.mkdir()
    assert (tmp_path / 'folder' / 'inside').read_text() == 'old'
    assert sorted(path.name for path in tmp_path.iterdir()) == ['file', 'folder']


def test_a_block_that_raises_leaves_nothing(tmp_path):
    def broken_off() -> None:
        with written_whole(tmp_path / 'folder') as place:
            place.mkdir()
            (place / 'inside').write_text('new')
            raise InterruptedError

    with pytest.raises(InterruptedError):
        broken_off()
    assert not list(tmp_path.iterdir())


def run_python(program: str, folder: Path) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, '-c', program, folder],
        env={**os.environ, 'PYTHONPATH': str(Path(__file__).parents[2])},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        text=True,
    )


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, 'fork'), reason='a process for each step is forked')
def test_an_interrupt_between_any_two_steps_leaves_the_old_file_or_the_new_one(tmp_path):
    said, errors = run_python(INTERRUPTED, tmp_path).communicate(timeout=120)
    steps = int(said)
    assert not errors
    assert steps > 100
    found = [
        {path.name: path.read_text() for path in (tmp_path / str(step)).iterdir()}
        for step in range(1, steps + 1)
    ]
    assert all(one in ({'file': 'old'}, {'file': 'new'}) for one in found)
    assert found[0] == {'file': 'old'}
    assert found[-1] == {'file': 'new'}


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGKILL])
def test_wherever_it_is_stopped_every_file_is_whole(number, tmp_path):
    for attempt in range(5):
        folder = tmp_path / str(attempt)
        folder.mkdir()
        process = run_python(WRITER, folder)
        while not (folder / '20').exists():
            assert process.poll() is None
            time.sleep(0.001)
        process.send_signal(number)
        process.communicate(timeout=60)
        for path in folder.iterdir():
            if not path.name.startswith('.'):
                assert path.read_text() == path.name * 5000
            else:
                assert number == signal.SIGKILL, path


def test_what_a_killed_process_left_can_be_cleared(tmp_path):
    for name in ('.last.ckpt.0badcafe.partial/last.ckpt', 'first.ckpt', '.hidden'):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    clear_partial(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ['.hidden', 'first.ckpt']
