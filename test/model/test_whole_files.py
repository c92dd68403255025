# SPDX-License-Identifier: Apache-2.0
"""What is written whole appears at once or not at all."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from smoothdino_model.whole_files import written_whole

# Writes one file after the other, as fast as it can; its name tells what is in it.
WRITER = """
import itertools, pathlib, sys
from smoothdino_model.whole_files import written_whole

for i in itertools.count():
    with written_whole(pathlib.Path(sys.argv[1]) / str(i)) as place:
        place.write_text(str(i) * 5000)
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


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGKILL])
def test_wherever_it_is_stopped_every_file_is_whole(number, tmp_path):
    for attempt in range(5):
        folder = tmp_path / str(attempt)
        folder.mkdir()
        process = subprocess.Popen(
            [sys.executable, '-c', WRITER, folder],
            env={**os.environ, 'PYTHONPATH': str(Path(__file__).parents[2])},
            stderr=subprocess.DEVNULL,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
        while not (folder / '20').exists():
            assert process.poll() is None
            time.sleep(0.001)
        process.send_signal(number)
        process.wait(30)
        for path in folder.iterdir():
            if not path.name.startswith('.'):
                assert path.read_text() == path.name * 5000
            else:
                assert number == signal.SIGKILL, path
