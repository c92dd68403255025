# SPDX-License-Identifier: Apache-2.0
"""``smoothdino bag``: what is in the bag it writes, as others read it."""

import json
import sqlite3
import subprocess
from contextlib import suppress

import numpy as np
import pytest
import torch
import yaml
from rosbags.highlevel import AnyReader

from smoothdino_model.cli.bag import _deterministic
from smoothdino_model.cli.main import main
from smoothdino_model.pipeline import CameraFrame, DepthPipeline
from smoothdino_model.recordings.open import open_recording
from smoothdino_model.room.sample_room import NYU_FOCAL
from support import made_recordings
from support.command_line import COMMAND, ENVIRONMENT
from support.made_recordings import BAGS, COMPRESSED, PERIOD_NS, START_NS, K, pictures, write_bag
from support.read_bags import depth_of, images, read, stamp_ns

pytestmark = pytest.mark.slow


def expected(source, model, topic=None, focal=K[0] / 64):
    """The pipeline's own depths of the frames of a bag of 64 pixels' width."""
    pipeline = DepthPipeline.from_pretrained(model, device='cpu')
    with open_recording(source, topic=topic) as recording:
        return [
            pipeline.step({'': CameraFrame(one.rgb, one.stamp_ns, focal=focal)})[''].depth_m
            for one in recording
        ]


@pytest.mark.parametrize(
    ('storage', 'topic'), [*((one, '/cam/image_raw') for one in BAGS), ('mcap', COMPRESSED)]
)
def test_every_frame_comes_out_with_its_times_and_its_camera(
    storage, topic, tmp_path, tiny_model_dir, bag, capsys
):
    name = 'in.bag' if storage == 'ros1' else 'in'
    topics = ('/cam/image_raw', COMPRESSED)
    source = write_bag(tmp_path / name, pictures(7), storage, topics=topics)
    assert bag(source, 'out', '--image', topic, '--max-depth', '1.5') == 0
    assert 'depth of 7 frames (0 resets)' in capsys.readouterr().out

    messages = read(tmp_path / 'out')
    assert [one[0] for one in messages] == ['/depth/camera_info', '/depth/image'] * 7
    assert [one[1] for one in messages[1::2]] == [START_NS + i * PERIOD_NS + 5 for i in range(7)]
    assert [one[1] for one in messages[::2]] == [one[1] for one in messages[1::2]]
    wanted = expected(source, tiny_model_dir, topic)
    for i in range(7):
        (_, _, info), (_, _, image) = messages[2 * i : 2 * i + 2]
        assert stamp_ns(image) == stamp_ns(info) == START_NS + i * PERIOD_NS
        assert image.header.frame_id == info.header.frame_id == 'optical'
        np.testing.assert_array_equal(info.k, K)
        assert (info.width, info.height, image.width, image.height) == (64, 48, 64, 48)
        in_range = np.where(wanted[i] > 1.5, np.inf, wanted[i])
        in_range[wanted[i] < 0.1] = -np.inf
        np.testing.assert_allclose(depth_of(image), in_range, rtol=1e-6)
    assert np.isposinf(depth_of(messages[1][2])).any()
    assert np.isfinite(depth_of(messages[1][2])).any()


def test_two_runs_write_the_same_bytes(tmp_path, tiny_model_dir):
    source = write_bag(tmp_path / 'in', pictures(6))
    options = ['--model', tiny_model_dir, '--device', 'cpu', '--keep-input']
    for run in ('one', 'two'):
        command = [*COMMAND, 'bag', source, tmp_path / run / 'out']
        # The number of threads decides in which order a product is added up.
        environment = ENVIRONMENT | {'OMP_NUM_THREADS': '1'}
        subprocess.run([*command, *options], env=environment, check=True, timeout=120)
    files = [sorted((tmp_path / run / 'out').iterdir()) for run in ('one', 'two')]
    assert [file.name for file in files[0]] == ['metadata.yaml', 'out_0.mcap']
    for one, other in zip(*files, strict=True):
        assert one.read_bytes() == other.read_bytes()


def test_ros_itself_reads_the_messages(tmp_path, bag):
    pytest.importorskip('rclpy', reason='needs ROS 2 (rclpy)')
    from rclpy.serialization import deserialize_message
    from sensor_msgs.msg import CameraInfo, Image

    assert bag(write_bag(tmp_path / 'in.bag', pictures(2), 'ros1'), 'out', '--keep-input') == 0
    kinds = {'sensor_msgs/msg/Image': Image, 'sensor_msgs/msg/CameraInfo': CameraInfo}
    got = {}
    with AnyReader([tmp_path / 'out']) as reader:
        for connection, _, raw in reader.messages():
            got[connection.topic] = deserialize_message(raw, kinds[connection.msgtype])
            assert stamp_ns(got[connection.topic]) in (START_NS, START_NS + PERIOD_NS)
    assert set(got) == {'/cam/image_raw', '/cam/camera_info', '/depth/image', '/depth/camera_info'}
    assert bytes(got['/cam/image_raw'].data) == pictures(2)[1].tobytes()
    assert np.frombuffer(got['/depth/image'].data, np.float32).size == 48 * 64
    for topic in ('/cam/camera_info', '/depth/camera_info'):
        np.testing.assert_array_equal(got[topic].k, K)
        assert got[topic].distortion_model == 'plumb_bob'


def test_foxgloves_library_reads_the_mcap_from_what_stands_in_it(tmp_path, bag):
    pytest.importorskip('mcap_ros2', reason='mcap-ros2-support is not installed')
    from mcap.reader import make_reader
    from mcap_ros2.decoder import DecoderFactory

    assert bag(write_bag(tmp_path / 'in', pictures(3))) == 0
    with (tmp_path / 'out' / 'out_0.mcap').open('rb') as file:
        reader = make_reader(file, validate_crcs=True, decoder_factories=[DecoderFactory()])
        assert reader.get_header().profile == 'ros2'
        decoded = list(reader.iter_decoded_messages(topics=['/depth/image']))
    assert [d.schema.encoding for d in decoded] == ['ros2msg'] * 3
    wanted = images(tmp_path / 'out')
    for one, image in zip(decoded, wanted, strict=True):
        assert one.decoded_message.encoding == '32FC1'
        assert bytes(one.decoded_message.data) == image.data.tobytes()


@pytest.mark.parametrize(('storage', 'name'), [('mcap', 'out_0.mcap'), ('sqlite3', 'out_0.db3')])
def test_its_file_is_called_as_rosbag2_calls_it_wherever_it_is_named(tmp_path, bag, storage, name):
    assert bag(write_bag(tmp_path / 'in', pictures(2)), 'out', '--storage', storage) == 0
    assert sorted(file.name for file in (tmp_path / 'out').iterdir()) == ['metadata.yaml', name]
    metadata = yaml.safe_load((tmp_path / 'out' / 'metadata.yaml').read_text())
    information = metadata['rosbag2_bagfile_information']
    assert information['relative_file_paths'] == [name]
    assert [file['path'] for file in information['files']] == [name]
    within = (tmp_path / 'out' / name).read_bytes()  # both storages keep the metadata, too
    assert name.encode() in within
    assert f'out.{name.split(".")[1]}'.encode() not in within


def test_sqlite3_and_millimetres(tmp_path, tiny_model_dir, bag):
    source = write_bag(tmp_path / 'in', pictures(3), 'sqlite3')
    options = ('--storage', 'sqlite3', '--depth-encoding', '16UC1', '--min-depth', '2.2')
    assert bag(source, 'out', *options) == 0
    with sqlite3.connect(tmp_path / 'out' / 'out_0.db3') as database:
        assert database.execute('PRAGMA integrity_check').fetchone() == ('ok',)
    for image, depth_m in zip(
        images(tmp_path / 'out'), expected(source, tiny_model_dir), strict=True
    ):
        far_enough = (depth_m >= 2.2) & (depth_m <= 10)
        assert 0 < far_enough.sum() < depth_m.size
        millimetres = np.rint(np.where(far_enough, depth_m, 0) * 1000)
        np.testing.assert_allclose(depth_of(image), millimetres, atol=1)
        np.testing.assert_array_equal(depth_of(image) == 0, ~far_enough)


def test_kept_input_is_the_input_in_its_order(tmp_path, bag):
    source = write_bag(tmp_path / 'in', pictures(3), topics=('/cam/image_raw', '/other/image'))
    assert bag(source, 'out', '--keep-input', '--image', '/cam/image_raw') == 0

    def of_camera(path):
        return [
            (topic, at_ns, stamp_ns(message), getattr(message, 'data', b''))
            for topic, at_ns, message in read(path)
            if topic.startswith('/cam/')
        ]

    kept, given = of_camera(tmp_path / 'out'), of_camera(source)
    assert [one[:3] for one in kept] == [one[:3] for one in given]
    for one, other in zip(kept, given, strict=True):
        np.testing.assert_array_equal(one[3], other[3])
    assert {topic for topic, _, _ in read(tmp_path / 'out')} == {
        *('/cam/image_raw', '/cam/camera_info', '/depth/image', '/depth/camera_info')
    }


def test_camera_info_of_another_size_or_place_or_none(tmp_path, bag, monkeypatch):
    whole = made_recordings.camera_info
    monkeypatch.setattr(
        'support.made_recordings.camera_info',
        lambda types, header, height, width, ros1: whole(
            types, header, height * 2, width * 2, ros1
        ),
    )
    source = write_bag(tmp_path / 'in', pictures(1), topics=('/cam/rgb/image', '/cam/image'))
    assert bag(source, 'fitted', '--image', '/cam/image') == 0
    info = read(tmp_path / 'fitted')[0][2]
    assert (info.width, info.height) == (64, 48)
    np.testing.assert_allclose(info.k, [25, 0, 16, 0, 25.5, 12, 0, 0, 1])
    elsewhere = ('--image', '/cam/rgb/image', '--camera-info', '/cam/camera_info')
    assert bag(source, 'elsewhere', *elsewhere) == 0
    np.testing.assert_array_equal(read(tmp_path / 'elsewhere')[0][2].k, info.k)
    assert bag(source, 'none', '--image', '/cam/rgb/image') == 0
    assert {topic for topic, _, _ in read(tmp_path / 'none')} == {'/depth/image'}


def test_depth_is_that_of_the_cameras_focal_length_unless_refused(
    tmp_path, tiny_model_dir, bag, caplog
):
    source = write_bag(tmp_path / 'in', pictures(1), topics=('/cam/image', '/lone/image'))
    plain = expected(source, tiny_model_dir, '/cam/image', focal=None)[0]
    everything = ('--min-depth', '0', '--max-depth', '100')
    assert bag(source, 'corrected', '--image', '/cam/image', *everything) == 0
    assert bag(source, 'not', '--image', '/cam/image', '--no-focal-correction', *everything) == 0
    assert 'no camera_info' not in caplog.text
    assert bag(source, 'lone', '--image', '/lone/image', *everything) == 0
    assert 'no camera_info' in caplog.text
    for out, scale in (('corrected', (K[0] / 64) / NYU_FOCAL), ('not', 1), ('lone', 1)):
        depth_m = depth_of(images(tmp_path / out)[0])
        np.testing.assert_allclose(depth_m[plain > 0], plain[plain > 0] * scale, rtol=1e-5)


def test_stamps_that_go_back_are_resets_and_the_order_is_that_of_receipt(tmp_path, bag, capsys):
    source = write_bag(tmp_path / 'in', pictures(3), 'sqlite3')
    with sqlite3.connect(source / 'in.db3') as database:  # the last was received first
        database.execute(f'UPDATE messages SET timestamp = {2 * START_NS} - timestamp')
    database.close()
    assert bag(source) == 0
    assert '3 frames (2 resets)' in capsys.readouterr().out
    assert [stamp_ns(one) - START_NS for one in images(tmp_path / 'out')] == [
        *(2 * PERIOD_NS, PERIOD_NS, 0)
    ]


def test_frames_of_another_frame_id_start_afresh_in_every_command(
    tmp_path, tiny_model_dir, bag, capsys
):
    source = write_bag(tmp_path / 'in', pictures(4), frame_ids=['front', 'front', 'rear', 'rear'])
    assert bag(source, 'out', '--max-depth', '1000') == 0
    assert '4 frames (1 resets)' in capsys.readouterr().out
    model = ('--model', str(tiny_model_dir), '--device', 'cpu')
    assert main(['infer', str(source), '--output', str(tmp_path / 'files'), *model]) == 0
    frames = json.loads((tmp_path / 'files/summary.json').read_text())['per_frame']
    assert [frame['reset'] is not None for frame in frames] == [True, False, True, False]
    for frame, image in zip(frames, images(tmp_path / 'out'), strict=True):
        depth_m = np.load(tmp_path / 'files' / frame['file'])
        here = (depth_m >= 0.1) & (depth_m <= 1000)
        np.testing.assert_array_equal(depth_of(image)[here], depth_m[here])


def test_what_makes_the_scale_doubtful_is_said_once_and_written_down(
    tmp_path, tiny_model_dir, bag, caplog
):
    squeezed = [(40.0 + i, 20.0) for i in range(3)]  # and zooming
    source = write_bag(tmp_path / 'in', pictures(3), focals_px=squeezed)
    assert bag(source, 'out') == 0
    model = ('--model', str(tiny_model_dir), '--device', 'cpu')
    assert main(['infer', str(source), '--output', str(tmp_path / 'files'), *model]) == 0
    said = 'the camera_info of /cam/image_raw is doubtful: expected square pixels'
    assert caplog.text.count(said) == 2
    custom_data = yaml.safe_load((tmp_path / 'out/metadata.yaml').read_text())
    custom_data = custom_data['rosbag2_bagfile_information']['custom_data']
    assert custom_data['smoothdino_doubts'].startswith(said)
    (doubt,) = json.loads((tmp_path / 'files/summary.json').read_text())['doubts']
    assert doubt == custom_data['smoothdino_doubts']


@pytest.mark.parametrize('info_late', [False, True])
@pytest.mark.parametrize('storage', BAGS)
def test_a_zooming_lens_scales_each_frame_by_its_own_camera_info(
    storage, info_late, tmp_path, tiny_model_dir, bag
):
    focals_px = [40.0, 60.0, 80.0, 100.0]
    name = 'in.bag' if storage == 'ros1' else 'in'
    source = write_bag(
        tmp_path / name, pictures(4), storage, focals_px=focals_px, info_late=info_late
    )
    with open_recording(source) as recording:
        assert [frame.intrinsics.fx_px for frame in recording] == focals_px
    assert bag(source, 'out', '--max-depth', '1000') == 0
    model = ('--model', str(tiny_model_dir), '--device', 'cpu')
    assert main(['infer', str(source), '--output', str(tmp_path / 'files'), *model]) == 0
    summary = json.loads((tmp_path / 'files/summary.json').read_text())
    scales = [frame['scale'] for frame in summary['per_frame']]
    np.testing.assert_allclose(np.divide(scales, scales[0]), [1, 1.5, 2, 2.5], rtol=1e-6)
    infos = [message for topic, _, message in read(tmp_path / 'out') if topic.endswith('info')]
    assert [info.k[0] for info in infos] == focals_px
    for frame, image in zip(summary['per_frame'], images(tmp_path / 'out'), strict=True):
        depth_m = np.load(tmp_path / 'files' / frame['file'])
        here = (depth_m >= 0.1) & (depth_m <= 1000)
        assert here.any()
        np.testing.assert_array_equal(depth_of(image)[here], depth_m[here])


@pytest.mark.parametrize('device_type', ['cpu', 'cuda'])
def test_a_gpu_is_deterministic_for_the_bag_and_no_longer(device_type, monkeypatch):
    monkeypatch.setenv('CUBLAS_WORKSPACE_CONFIG', ':4096:8')
    monkeypatch.setattr(torch.backends.cudnn, 'benchmark', True)
    with suppress(KeyError), _deterministic(device_type):
        assert torch.are_deterministic_algorithms_enabled() == (device_type == 'cuda')
        assert torch.backends.cudnn.benchmark == (device_type == 'cpu')
        raise KeyError
    assert not torch.are_deterministic_algorithms_enabled()
    assert not torch.is_deterministic_algorithms_warn_only_enabled()
    assert torch.backends.cudnn.benchmark
