# SPDX-License-Identifier: Apache-2.0
"""``smoothdino bag`` writes a whole bag or none, and says what of its input is lost."""

import resource
import signal
import sqlite3
import subprocess
import time

import numpy as np
import pytest

from support.command_line import COMMAND, ENVIRONMENT
from support.made_recordings import COMPRESSED, PERIOD_NS, START_NS, pictures, write_bag
from support.read_bags import images, stamp_ns

pytestmark = pytest.mark.slow


def beside(tmp_path):
    return sorted(path.name for path in tmp_path.iterdir())


@pytest.mark.parametrize(
    ('source', 'out', 'options', 'reason'),
    [
        ('in', 'taken', (), 'taken exists already'),
        ('in', 'empty', (), 'empty exists already'),
        ('in', 'in', (), 'in exists already'),
        ('in', 'out.bag', (), 'does not end in .bag'),
        ('in', 'out', ('--image', '/nothing'), 'there are /cam/image_raw'),
        ('in', 'out', ('--camera-info', '/nothing'), 'there are /cam/camera_info'),
        ('in', 'out', ('--max-depth', '70', '--depth-encoding', '16UC1'), '65.535 m with 16UC1'),
        ('in', 'out', ('--min-depth', '-1'), 'min depth'),
        ('in', 'out', ('--max-depth', 'nan'), 'max depth'),
        ('in', 'out', ('--model', 'missing/it/is'), 'missing/it/is'),
        ('absent', 'out', (), 'no such file'),
        ('folder', 'out', (), 'expected a rosbag'),
    ],
)
def test_what_cannot_be_done_is_refused_and_leaves_everything(
    source, out, options, reason, tmp_path, bag, capsys
):
    write_bag(tmp_path / 'in', pictures(1))
    (tmp_path / 'taken').write_text('mine')
    (tmp_path / 'empty').mkdir()
    (tmp_path / 'folder').mkdir()
    (tmp_path / 'folder' / '1.png').write_bytes(b'')
    before = beside(tmp_path)
    assert bag(tmp_path / source, out, *options) == 2
    words = capsys.readouterr().err.strip().splitlines()[-1]
    assert words.startswith('smoothdino: error: ')
    assert reason in words
    assert beside(tmp_path) == before
    assert (tmp_path / 'taken').read_text() == 'mine'
    assert not list((tmp_path / 'empty').iterdir())


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGKILL])
def test_a_run_that_is_stopped_leaves_nothing_under_the_name(
    number, tmp_path, tiny_model_dir, bag
):
    source = write_bag(tmp_path / 'in', pictures(1) * 1000, 'sqlite3')
    out = tmp_path / 'out'
    process = subprocess.Popen(
        [*COMMAND, 'bag', source, out, '--model', tiny_model_dir],
        env=ENVIRONMENT,
        stderr=subprocess.PIPE,
        text=True,
        # a shell that starts the tests in the background has SIGINT ignored, and so would this
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )

    def written() -> int:
        return sum(file.stat().st_size for file in tmp_path.glob('.out.*/out_0/*'))

    deadline = time.monotonic() + 120
    while written() < 1_000_000 and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    assert written() >= 1_000_000
    process.send_signal(number)
    _, stderr = process.communicate(timeout=60)
    assert not out.exists()
    if number == signal.SIGINT:
        assert process.returncode == 130, stderr
        assert stderr.strip().splitlines()[-1] == 'smoothdino: interrupted'
        assert beside(tmp_path) == ['in']
    short = write_bag(tmp_path / 'short', pictures(2))
    assert bag(short) == 0  # whatever was left is not in the way
    assert len(images(out)) == 2


@pytest.mark.parametrize('storage', ['mcap', 'sqlite3'])
def test_a_full_disk_is_said_and_leaves_nothing(storage, tmp_path, bag, capsys):
    source = write_bag(tmp_path / 'in', pictures(40, height=96, width=128))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_200_000, limits[1]))
    try:
        assert bag(source, 'out', '--storage', storage, '--input-height', '28') == 2
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert capsys.readouterr().err.strip().splitlines()[-1].startswith('smoothdino: error: ')
    assert beside(tmp_path) == ['in']


def test_a_bag_cut_short_gives_its_whole_frames_and_says_what_is_lost(tmp_path, bag, capsys):
    source = write_bag(tmp_path / 'in', pictures(16, height=240, width=320))
    assert bag(source, 'whole', '--input-height', '28') == 0
    file = source / 'in.mcap'
    data = file.read_bytes()
    file.write_bytes(data[: int(len(data) * 0.7)] + bytes(5000))  # zeros, as after a power cut
    capsys.readouterr()
    assert bag(source, 'out', '--input-height', '28') == 3
    said = capsys.readouterr()
    got = images(tmp_path / 'out')
    assert 8 <= len(got) < 12
    assert f'depth of {len(got)} frames' in said.out
    assert 'in.mcap is cut short' in said.err
    assert f'of its {file.stat().st_size} bytes' in said.err
    metadata = ' '.join((tmp_path / 'out' / 'metadata.yaml').read_text().split())
    assert 'in.mcap is cut short' in metadata
    for cut, whole in zip(got, images(tmp_path / 'whole'), strict=False):
        assert stamp_ns(cut) == stamp_ns(whole)
        np.testing.assert_array_equal(cut.data, whole.data)


def test_damage_inside_a_bag_keeps_the_frames_before_it(tmp_path, bag, capsys):
    source = write_bag(tmp_path / 'in', pictures(16, height=240, width=320), 'sqlite3')
    with sqlite3.connect(source / 'in.db3') as database:
        database.execute("UPDATE messages SET data = x'00010000ff' WHERE id = 21")
    database.close()
    assert bag(source, 'out', '--input-height', '28') == 3
    assert 'what comes after it is lost' in capsys.readouterr().err
    assert len(images(tmp_path / 'out')) == 10


def test_a_picture_that_does_not_decode_is_left_out_and_named(tmp_path, bag, capsys):
    topics = (COMPRESSED,)
    source = write_bag(tmp_path / 'in', pictures(5), topics=topics, broken=(2,))
    assert bag(source) == 3
    said = capsys.readouterr()
    assert 'depth of 4 frames' in said.out
    assert f'the image at {START_NS + 2 * PERIOD_NS} ns on {COMPRESSED}' in said.err
    places = [(stamp_ns(one) - START_NS) // PERIOD_NS for one in images(tmp_path / 'out')]
    assert places == [0, 1, 3, 4]
    nothing = write_bag(tmp_path / 'nothing', pictures(2), topics=topics, broken=(0, 1))
    assert bag(nothing, 'none') == 2
    assert 'no frame could be read' in capsys.readouterr().err
    assert not (tmp_path / 'none').exists()
