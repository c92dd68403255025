# SPDX-License-Identifier: Apache-2.0
"""Bags as recorders leave them: no frame is lost in silence, and no bystander costs a bag."""

import shutil
import sqlite3
import struct

import pytest
import yaml
from backports import zstd
from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin, Writer

from smoothdino_model.cli.main import main
from smoothdino_model.recordings.bags import TYPES
from smoothdino_model.recordings.frames import RecordingError
from smoothdino_model.recordings.open import open_recording
from support.made_recordings import PERIOD_NS, START_NS, pictures, place_of, write_bag

QOS = """- history: 1
  depth: {depth}
  reliability: 1
  durability: 2
  deadline: {{sec: 9223372036, nsec: 854775807}}
  lifespan: {{sec: 9223372036, nsec: 854775807}}
  liveliness: 1
  liveliness_lease_duration: {{sec: 9223372036, nsec: 854775807}}
  avoid_ros_namespace_conventions: false
"""


def places(path, topic=None):
    with open_recording(path, topic=topic) as recording:
        got = [place_of(frame.rgb) for frame in recording]
        assert not recording.lost
        assert len(recording) == len(got)
    return got


def metadata_of(path):
    return yaml.safe_load((path / 'metadata.yaml').read_text())['rosbag2_bagfile_information']


def write_metadata(path, metadata):
    (path / 'metadata.yaml').write_text(yaml.safe_dump({'rosbag2_bagfile_information': metadata}))


def write_split(tmp_path, storage):
    """12 frames in two files, the second recorded with another QoS than metadata.yaml tells."""
    suffix = {'sqlite3': '.db3', 'mcap': '.mcap'}[storage]
    split, frames = tmp_path / 'split', pictures(12)
    split.mkdir()
    for i in range(2):
        part = write_bag(tmp_path / f'part_{i}', frames[6 * i : 6 * i + 6], storage, first=6 * i)
        shutil.copy(part / f'part_{i}{suffix}', split / f'split_{i}{suffix}')
    metadata = metadata_of(part)
    metadata['relative_file_paths'] = [f'split_{i}{suffix}' for i in range(2)]
    metadata['message_count'] = 24
    for topic in metadata['topics_with_message_count']:
        topic['message_count'] = 12
        topic['topic_metadata']['offered_qos_profiles'] = QOS.format(depth=5)
    write_metadata(split, metadata)
    if storage == 'sqlite3':
        with sqlite3.connect(split / 'split_1.db3') as database:
            database.execute('UPDATE topics SET offered_qos_profiles = ?', [QOS.format(depth=9)])
        database.close()
    return split


@pytest.mark.parametrize('storage', ['sqlite3', 'mcap'])
def test_a_split_bag_gives_all_of_its_frames_whatever_their_qos(storage, tmp_path):
    assert places(write_split(tmp_path, storage)) == list(range(12))


@pytest.mark.parametrize('storage', ['sqlite3', 'mcap'])
def test_frames_that_the_metadata_counts_and_no_file_holds_are_said(storage, tmp_path, caplog):
    path = write_bag(tmp_path / 'bag', pictures(4), storage)
    metadata = metadata_of(path)
    for topic in metadata['topics_with_message_count']:
        topic['message_count'] = 7
    write_metadata(path, metadata)
    with open_recording(path) as recording:
        assert len(list(recording)) == 4
        assert len(list(recording)) == 4
        (lost,) = recording.lost
    assert 'counts 7 images of /cam/image_raw, and 4 could be read' in lost
    assert caplog.text.count(lost) == 1


def test_a_file_of_which_the_metadata_does_not_know_is_said(tmp_path):
    path = write_bag(tmp_path / 'bag', pictures(3), 'sqlite3')
    (file,) = path.glob('*.db3')
    shutil.copy(file, path / 'bag_1.db3')
    with open_recording(path) as recording:
        assert len(list(recording)) == 3
    (lost,) = recording.lost
    assert 'bag_1.db3, of which its metadata.yaml does not know' in lost


@pytest.mark.slow
@pytest.mark.parametrize('command', ['infer', 'bag'])
def test_a_loss_is_said_and_is_the_exit_code(command, tmp_path, tiny_model_dir, capsys):
    path = write_bag(tmp_path / 'bag', pictures(2))
    output = ['--output', str(tmp_path / 'out')] if command == 'infer' else [str(tmp_path / 'out')]
    options = [*output, '--model', str(tiny_model_dir)]
    assert main([command, str(path), *options]) == 0
    shutil.rmtree(tmp_path / 'out')
    metadata = metadata_of(path)
    metadata['topics_with_message_count'][0]['message_count'] = 3
    write_metadata(path, metadata)
    capsys.readouterr()
    assert main([command, str(path), *options]) == 3
    assert 'lost: ' in capsys.readouterr().err
    assert list((tmp_path / 'out').iterdir())


@pytest.mark.parametrize('mode', [CompressionMode.FILE, CompressionMode.MESSAGE])
@pytest.mark.parametrize('storage', ['sqlite3', 'mcap'])
def test_a_compressed_bag_is_read_as_its_folder_and_a_part_alone_says_so(
    storage, mode, tmp_path, monkeypatch
):
    opened = Writer.open

    def compressing(writer):
        writer.set_compression(mode, CompressionFormat.ZSTD)
        opened(writer)

    monkeypatch.setattr(Writer, 'open', compressing)
    path = write_bag(tmp_path / 'bag', pictures(5), storage)
    assert places(path) == list(range(5))
    (part,) = (file for file in path.iterdir() if file.suffix != '.yaml')
    words = 'messages .* are compressed.*give the folder'
    if mode == CompressionMode.FILE:
        assert part.suffix == '.zstd'
        words = 'one file of a compressed bag: give the folder'
        part.with_suffix('').write_bytes(b'unpacked, as ros2 bag play leaves it')
        with open_recording(path) as recording:
            assert len(list(recording)) == 5
        assert not recording.lost
    with pytest.raises(RecordingError, match=words), open_recording(part) as recording:
        list(recording)


def test_what_a_recorder_that_was_killed_left_in_its_journal_is_read(tmp_path):
    whole = write_bag(tmp_path / 'bag', pictures(6), 'sqlite3') / 'bag.db3'
    (tmp_path / 'killed').mkdir()
    with sqlite3.connect(whole) as database:
        database.execute('PRAGMA journal_mode=WAL')
        database.execute('PRAGMA wal_autocheckpoint=0')
        database.execute('UPDATE messages SET timestamp = timestamp + 1')
        database.execute(f'DELETE FROM messages WHERE timestamp > {START_NS + 4 * PERIOD_NS}')
        database.commit()
        for file in whole.parent.glob('bag.db3*'):  # as they are while it records
            shutil.copy(file, tmp_path / 'killed' / file.name)
    database.close()
    assert (tmp_path / 'killed' / 'bag.db3-wal').stat().st_size
    assert places(tmp_path / 'killed' / 'bag.db3') == list(range(4))


def raw_messages(count=5):
    """Images as CDR, and a message of ROS that is none of ours."""
    for i, rgb in enumerate(pictures(count)):
        stamp_ns = START_NS + i * PERIOD_NS
        time = TYPES.types['builtin_interfaces/msg/Time'](*divmod(stamp_ns, 10**9))
        header = TYPES.types['std_msgs/msg/Header'](stamp=time, frame_id='optical')
        kind = TYPES.types['sensor_msgs/msg/Image']
        image = kind(header, *rgb.shape[:2], 'rgb8', 0, 3 * rgb.shape[1], rgb.ravel())
        yield stamp_ns, bytes(TYPES.serialize_cdr(image, 'sensor_msgs/msg/Image'))


def record(op, content):
    return bytes([op]) + struct.pack('<Q', len(content)) + content


def text(value):
    data = value if isinstance(value, bytes) else value.encode()
    return struct.pack('<I', len(data)) + data


BYSTANDERS = {
    'json': ('/log', 'app.Log', 'jsonschema', b'{"type": "object"}', 'json', b'{}'),
    'protobuf': ('/pose', 'app.Pose', 'protobuf', bytes(range(256)), 'protobuf', b'\x08\x01'),
    'unparsable': ('/odd', 'odd_msgs/msg/Odd', 'ros2msg', b'int33 x y z ???', 'cdr', bytes(8)),
    'without a schema': ('/bytes', '', '', b'', '', bytes(3)),
    'on its topic': ('/cam/image_raw', 'sensor_msgs/msg/Image', 'jsonschema', b'', 'json', b'{}'),
    'ROS 1': ('/one', 'std_msgs/String', 'ros1msg', b'string data', 'ros1', text('x')),
}
IMAGES = ('/cam/image_raw', 'sensor_msgs/msg/Image', 'ros2msg', b'', 'cdr', b'')


def write_mcap(path, beside=(), *, chunk='', index=True, profile='ros2', ours=True):
    """Images, without a definition of their type, beside channels of any kind."""
    channels = ([IMAGES] if ours else []) + [BYSTANDERS.get(name, name) for name in beside]
    head = b''
    for i, (topic, kind, schema, definition, encoding, _) in enumerate(channels):
        head += record(3, struct.pack('<H', i + 1) + text(kind) + text(schema) + text(definition))
        of = struct.pack('<HH', i, i + 1 if kind else 0)
        head += record(4, of + text(topic) + text(encoding) + text(b''))
    messages, counts = b'', dict.fromkeys(range(len(channels)), 0)
    for stamp_ns, image in raw_messages():
        for i, channel in enumerate(channels):
            data = image if channel is IMAGES else channel[-1]
            messages += record(5, struct.pack('<HIQQ', i, 0, stamp_ns, stamp_ns) + data)
            counts[i] += 1
    data = head + messages
    if chunk:
        packed = zstd.compress(data) if chunk == 'zstd' else data
        times = struct.pack('<QQ', START_NS, START_NS + 4 * PERIOD_NS)
        sizes = struct.pack('<QI', len(data), 0)
        name = text('' if chunk == 'plain' else chunk)
        data = record(6, times + sizes + name + struct.pack('<Q', len(packed)) + packed)
    start = b'\x89MCAP0\r\n' + record(1, text(profile) + text('made')) + data
    start += record(0x0F, bytes(4))
    summary = b''
    if index:
        by_channel = b''.join(struct.pack('<HQ', *one) for one in counts.items())
        totals = struct.pack('<QHIIIIQQ', sum(counts.values()), *(0,) * 5, START_NS, START_NS)
        summary = head + record(0x0B, totals + struct.pack('<I', len(by_channel)) + by_channel)
    footer = record(2, struct.pack('<QQI', len(start) if index else 0, 0, 0))
    path.write_bytes(start + summary + footer + b'\x89MCAP0\r\n')
    return path


@pytest.mark.parametrize('index', [True, False])
@pytest.mark.parametrize('chunk', ['', 'plain', 'zstd'])
def test_bystanders_never_cost_an_mcap(chunk, index, tmp_path):
    path = write_mcap(tmp_path / 'a.mcap', BYSTANDERS, chunk=chunk, index=index)
    assert places(path) == list(range(5))
    assert places(path, '/cam/image_raw') == list(range(5))


@pytest.mark.parametrize('name', BYSTANDERS)
def test_a_bystander_in_an_mcap_that_is_cut_costs_nothing_either(name, tmp_path):
    path = write_mcap(tmp_path / 'a.mcap', [name], chunk='zstd')
    path.write_bytes(path.read_bytes()[:-20])
    with open_recording(path) as recording:
        assert [place_of(frame.rgb) for frame in recording] == list(range(5))
        (lost,) = recording.lost
        assert 'cut short' in lost


@pytest.mark.parametrize(
    ('encoding', 'definition'), [('unknown', ''), ('ros2msg', 'int33 ???'), ('omgidl', 'x')]
)
def test_bystanders_never_cost_a_sqlite3_bag(encoding, definition, tmp_path):
    path = write_bag(tmp_path / 'bag', pictures(4), 'sqlite3')
    with sqlite3.connect(path / 'bag.db3') as database:
        kind = ('odd_msgs/msg/Odd', encoding, definition, '')
        columns = 'topic_type, encoding, encoded_message_definition, type_description_hash'
        database.execute(f'INSERT INTO message_definitions ({columns}) VALUES(?, ?, ?, ?)', kind)
        database.execute("INSERT INTO topics VALUES(9, '/odd', 'odd_msgs/msg/Odd', 'cdr', '', '')")
        database.execute('UPDATE message_definitions SET encoded_message_definition = ""')
    database.close()
    assert places(path) == list(range(4))
    assert places(path / 'bag.db3') == list(range(4))


def test_an_image_beside_depth_of_every_kind_needs_no_name(tmp_path):
    topics = {
        '/cam/image_raw/compressed': 'rgb8; jpeg compressed bgr8',
        '/cam/depth/compressed': '16UC1; png compressed ',
        '/cam/depth/compressedDepth': '16UC1; compressedDepth rvl',
        '/cam/inverse/compressedDepth': '; compressedDepth',
        '/cam/grey/compressedDepth': 'mono16; compressedDepth png',
    }
    path = write_bag(tmp_path / 'bag', pictures(3), topics=tuple(topics), forms=topics)
    assert places(path) == [0, 1, 2]


def test_a_bag_without_images_is_told_what_it_holds_and_what_reads_it(tmp_path):
    ffmpeg = ('/cam/ffmpeg', 'ffmpeg_image_transport_msgs/msg/FFMPEGPacket', 'ros2msg', b'', 'cdr')
    mute = {'index': True, 'ours': False}
    path = write_mcap(tmp_path / 'a.mcap', ['json', (*ffmpeg, b'')], **mute)
    with pytest.raises(RecordingError) as caught:
        open_recording(path)
    for part in ('/cam/ffmpeg (ffmpeg_image', '/log (app.Log)', 'republish ffmpeg raw'):
        assert part in str(caught.value)
    path = write_mcap(tmp_path / 'b.mcap', ['ROS 1'], profile='ros1', **mute)
    with pytest.raises(RecordingError, match='messages are of ROS 1: give'):
        open_recording(path)
    with Writer(tmp_path / 'empty', version=9, storage_plugin=StoragePlugin.MCAP):
        pass
    with pytest.raises(RecordingError, match='it holds nothing'):
        open_recording(tmp_path / 'empty')


def test_chunks_that_overlap_in_time_are_put_in_order(tmp_path, monkeypatch):
    write = Writer.write

    def late(writer, connection, timestamp, data):  # every other image half a second before
        odd = (timestamp - START_NS) // PERIOD_NS % 2
        write(writer, connection, timestamp - 20 * PERIOD_NS * odd, data)

    monkeypatch.setattr(Writer, 'write', late)
    path = write_bag(tmp_path / 'bag', pictures(14, height=240, width=320))
    got = places(path)
    assert got == [*range(1, 14, 2), *range(0, 14, 2)]
