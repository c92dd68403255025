# SPDX-License-Identifier: Apache-2.0
"""Whatever a publisher sends, the node stays up, says why it refuses, and answers the next frame.

SMOOTHDINO_SOAK=1 sends 10,000 messages of each kind through the callbacks instead of 200.
"""

import os
import struct
import time
import zlib
from functools import cache

import cv2
import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest

rclpy = pytest.importorskip('rclpy', reason='needs ROS 2 (rclpy)')

from builtin_interfaces.msg import Time
from rclpy.qos import HistoryPolicy, QoSProfile
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, RegionOfInterest
from std_msgs.msg import Header

from smoothdino_model.recordings.image_bytes import MAX_PIXELS
from smoothdino_model.recordings.images import rgb_from_compressed, rgb_from_file
from support.camera_process import camera_info
from support.counted_work import counted_work
from support.node_in_this_process import GOOD, KINDS, InThisProcess, good
from support.ros_processes import Observer, Process, stamp_ns

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures('dds')]
SOAK = bool(os.environ.get('SMOOTHDINO_SOAK'))
CHANNELS = {
    **dict.fromkeys(('mono8', '8UC1', 'bayer_rggb8', 'bayer_gbrg8'), 1),
    **dict.fromkeys(('mono16', 'yuv422', 'yuv422_yuy2', 'uyvy', 'yuyv'), 2),
    **dict.fromkeys(('rgb8', 'bgr8', '8UC3'), 3),
    **dict.fromkeys(('rgba8', 'bgra8'), 4),
}  # bytes for one pixel

# What messages are made of.

U32 = st.integers(0, 60) | st.sampled_from([2**16, 2**24, 2**31, 2**32 - 1])
TEXT = st.text(st.characters(codec='utf-8', exclude_characters='\0'), max_size=12) | st.just(
    'x' * 5_000
)
NUMBERS = st.floats() | st.sampled_from([0.0, -1.0, 1e308, 5e-324])
BYTES = st.builds(
    lambda seed, size: np.random.default_rng(seed).bytes(size),
    st.integers(0, 2**32),
    st.integers(0, 400) | st.just(70_000),
)
STAMPS = st.builds(
    Time,
    sec=st.integers(-(2**31), 2**31 - 1) | st.sampled_from([0, 1, 2**31 - 1, -(2**31)]),
    nanosec=st.integers(0, 2**32 - 1) | st.sampled_from([0, 999_999_999, 2**32 - 1]),
)
HEADERS = st.builds(Header, stamp=STAMPS, frame_id=TEXT | st.just('camera'))
ENCODINGS = st.sampled_from([*CHANNELS, '32FC1', '16UC1', 'nv12', 'rgb16', 'bayer_rggb16', 'jpeg'])


@st.composite
def raw_images(draw) -> tuple[Image, bool]:
    """An Image, mostly with some of its fields wrong; and whether none is."""
    encoding = draw(st.sampled_from(list(CHANNELS)))
    height, width = draw(st.integers(5, 40)), 2 * draw(st.integers(3, 20))
    step = width * CHANNELS[encoding] + draw(st.sampled_from([0, 0, 1, 16]))
    fields = {
        'height': height,
        'width': width,
        'step': step,
        'encoding': encoding,
        'data': np.random.default_rng(draw(st.integers(0, 2**32))).bytes(height * step),
    }
    wrong = draw(st.sets(st.sampled_from([*fields, 'size']), max_size=3))
    for name in wrong:
        if name == 'data':
            fields['data'] = draw(BYTES | st.just(b'') | st.just(fields['data'][: height * 3]))
        elif name == 'encoding':
            fields['encoding'] = draw(ENCODINGS | TEXT)
        elif name == 'size':  # whole in itself, but no camera's
            tall, wide = draw(st.sampled_from([(1, 4000), (4000, 1), (1, 1), (2, 70)]))
            fields |= {'height': tall, 'width': wide, 'step': 3 * wide, 'encoding': 'rgb8'}
            fields['data'] = bytes(3 * tall * wide)
        else:
            fields[name] = draw(U32)
    endian = draw(st.integers(0, 255))
    return Image(header=draw(HEADERS), is_bigendian=endian, **fields), not wrong


@cache
def encoded(extension: str, height: int, width: int) -> bytes:
    pixels = np.random.default_rng(height).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return cv2.imencode(extension, pixels)[1].tobytes()


@st.composite
def compressed_images(draw) -> tuple[CompressedImage, bool]:
    """A CompressedImage, mostly broken somewhere; and whether it is whole."""
    extension = draw(st.sampled_from(['.jpg', '.png', '.jpg', '.png', '.bmp', '.tiff', '.webp']))
    data = encoded(extension, draw(st.integers(8, 24)), draw(st.integers(8, 24)))
    wrong = draw(st.sampled_from(['', 'cut', 'flipped', 'filled', 'foreign', 'claims']))
    if wrong == 'cut':
        data = data[: draw(st.integers(0, len(data) - 1))]
    elif wrong == 'flipped':
        broken = bytearray(data)
        for _ in range(draw(st.integers(1, 6))):
            broken[draw(st.integers(0, len(data) - 1))] = draw(st.integers(0, 255))
        data = bytes(broken)
    elif wrong == 'filled':
        at = draw(st.integers(0, len(data)))
        data = data[:at] + draw(BYTES) + data[at:]
    elif wrong == 'foreign':
        data = draw(BYTES)
    elif wrong == 'claims':
        data = claiming(extension, draw(st.integers(0, 65535)), draw(st.integers(0, 65535)))
    whole = not wrong and extension in ('.jpg', '.png')
    return CompressedImage(header=draw(HEADERS), format=draw(TEXT), data=data), whole


def claiming(extension: str, width: int, height: int) -> bytes:
    """A small file that says in its header that it has this size; a PNG's checksum agrees."""
    data = bytearray(encoded(extension, 16, 16))
    if extension == '.png':
        data[16:24] = struct.pack('>II', width, height)
        data[29:33] = struct.pack('>I', zlib.crc32(data[12:29]))
    elif extension == '.jpg':
        frame = data.index(b'\xff\xc0')
        data[frame + 5 : frame + 9] = struct.pack('>HH', height, width)
    elif extension == '.bmp':
        data[18:26] = struct.pack('<II', width, height)
    return bytes(data)


IMAGES = {'raw': raw_images(), 'compressed': compressed_images()}
INFOS = st.none() | st.builds(
    CameraInfo,
    header=HEADERS,
    height=U32,
    width=U32,
    distortion_model=st.sampled_from(['plumb_bob', 'equidistant', '']) | TEXT,
    d=st.lists(NUMBERS, max_size=9),
    k=st.lists(NUMBERS, min_size=9, max_size=9),
    r=st.lists(NUMBERS, min_size=9, max_size=9),
    p=st.lists(NUMBERS, min_size=12, max_size=12),
    binning_x=U32,
    binning_y=U32,
    roi=st.builds(RegionOfInterest, x_offset=U32, y_offset=U32, height=U32, width=U32),
)


# Through the callbacks: the node in this process, its worker and all it publishes.


@pytest.fixture(scope='module', params=list(KINDS))
def here(request, tiny_model_dir, dds):
    one = InThisProcess(tiny_model_dir, request.param)
    yield one
    one.close()


def test_10000_messages_through_the_callbacks(here):
    transport = 'raw' if here.kind is Image else 'compressed'
    messages = 10_000 if SOAK else 200
    seen: dict[str, int] = {}

    @hypothesis.settings(
        deadline=None,
        max_examples=messages,
        derandomize=not SOAK,
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    @hypothesis.given(IMAGES[transport], INFOS)
    def each_is_answered_or_refused_with_a_reason(image, info):
        message, whole = image
        if info is not None:
            here.send_info(info)
        outcome = here.send(message)
        seen[outcome] = seen.get(outcome, 0) + 1
        counts = here.counts()
        assert outcome in ('answered', 'rejected'), counts.last_failure
        assert outcome == 'answered' or not whole, counts.last_rejection
        if outcome == 'rejected':
            assert len(counts.last_rejection) < 500
            assert 'expected' in counts.last_rejection
        if sum(seen.values()) % 10 == 0:
            assert here.send(good(here.kind, sum(seen.values()) * 10**7)) == 'answered'

    each_is_answered_or_refused_with_a_reason()
    assert sum(seen.values()) >= messages
    assert seen['rejected'] > 10
    assert seen['answered'] > 10
    here.viewer.reliable.clear()
    here.send_info(camera_info(GOOD))
    assert here.send(good(here.kind, 5 * 10**9)) == 'answered'
    assert here.viewer.wait_for(lambda: any(stamp_ns(m) == 5 * 10**9 for m in here.viewer.infos))
    assert here.viewer.wait_for(lambda: stamp_ns(here.viewer.reliable[-1]) == 5 * 10**9)
    depth = here.viewer.reliable[-1]
    assert (depth.height, depth.width) == GOOD.shape[:2]


@pytest.mark.parametrize('kind', ['png', 'jpg', 'jpg with bytes between its segments', 'bmp'])
def test_a_bomb_is_refused_before_it_is_decoded(kind):
    bomb = claiming('.' + kind[:3], 60_000, 60_000)
    if 'between' in kind:  # libjpeg passes over them, and so must whoever reads the size
        frame = bomb.index(b'\xff\xc0')
        bomb = bomb[:frame] + b'\0\x07' + bomb[frame:]
    expected = 'of neither' if kind == 'bmp' else f'{MAX_PIXELS}'
    with pytest.raises(ValueError, match=expected), counted_work() as work:
        rgb_from_compressed(bomb)
    assert work.peak_bytes < 10_000_000
    assert work.calls < 200


def test_a_few_bytes_are_no_large_picture_but_a_black_one_may_be_small():
    with pytest.raises(ValueError, match='too few for 4000x3000 pixels'):
        rgb_from_compressed(claiming('.jpg', 4000, 3000))  # libjpeg would fill it with grey
    black = np.zeros((600, 800, 3), np.uint8)
    for options in ([], [cv2.IMWRITE_JPEG_OPTIMIZE, 1], [cv2.IMWRITE_JPEG_PROGRESSIVE, 1]):
        smallest = [*options, cv2.IMWRITE_JPEG_QUALITY, 1]
        for pixels in (black, black[..., 0]):
            jpeg = cv2.imencode('.jpg', pixels, smallest)[1].tobytes()
            assert rgb_from_compressed(jpeg).max() < 3


def test_bytes_between_the_segments_of_a_jpeg_do_no_harm():
    whole = encoded('.jpg', 16, 24)
    frame = whole.index(b'\xff\xc0')
    np.testing.assert_array_equal(
        rgb_from_compressed(whole[:frame] + b'\0\x07\xff' + whole[frame:]),
        rgb_from_compressed(whole),
    )


def test_other_formats_are_for_files_only():
    for extension in ('.bmp', '.tiff', '.webp'):
        data = encoded(extension, 16, 16)
        assert rgb_from_file(data).shape == (16, 16, 3)
        with pytest.raises(ValueError, match='expected a whole JPEG or PNG'):
            rgb_from_compressed(data)


# Over DDS: the node in a process of its own.


@pytest.mark.parametrize('transport', ['raw'])
def test_hundreds_of_messages_over_dds(transport, tiny_model_dir, tmp_path):
    kind, topic = KINDS[transport]
    arguments = ('-p', f'model:={tiny_model_dir}', '-p', f'image_transport:={transport}')
    # None is lost on the way, however busy the machine is.
    qos = f'qos_overrides./{topic}.subscription'
    arguments += ('-p', f'{qos}.reliability:=reliable', '-p', f'{qos}.history:=keep_all')
    node = Process(
        tmp_path / 'log',
        *('-m', 'smoothdino_ros.depth_node', '--ros-args', *arguments),
        *('-p', 'diagnostics_period_s:=0.2'),
    )
    observer = Observer()
    images = observer.node.create_publisher(
        kind, topic, QoSProfile(history=HistoryPolicy.KEEP_ALL)
    )
    infos = observer.node.create_publisher(CameraInfo, 'camera_info', QoSProfile(depth=5))
    try:
        assert observer.wait_for(images.get_subscription_count, 120), node.words()
        observer.wait_until_known()
        sent = good_ones = 0

        @hypothesis.settings(
            deadline=None,
            max_examples=300,
            derandomize=True,
            suppress_health_check=list(hypothesis.HealthCheck),
        )
        @hypothesis.given(IMAGES[transport], INFOS)
        def the_next_good_frame_is_answered(image, info):
            nonlocal sent, good_ones
            if info is not None:
                infos.publish(info)
            images.publish(image[0])
            sent += 1
            time.sleep(0.003)
            if sent % 10 == 0:
                good_ones += 1
                good_ns = 10**9 + sent * 10**7
                images.publish(good(kind, good_ns))
                assert observer.wait_for(
                    lambda: observer.reliable and stamp_ns(observer.reliable[-1]) == good_ns
                ), node.words()

        started_s = time.monotonic()
        the_next_good_frame_is_answered()
        took_s = time.monotonic() - started_s
        assert sent >= 300
        observer.diagnostics.clear()
        assert observer.wait_for(lambda: len(observer.diagnostics) >= 2)
        overall, camera = observer.diagnostics[-1].status
        values = {one.key: one.value for one in camera.values}
        assert overall.level == b'\0'
        ends = ('unwanted', 'dropped', 'overdue', 'rejected', 'failed', 'answered')
        counted = {name: int(values[name]) for name in ends if name in values}
        assert sum(counted.values()) == int(values['received'])
        assert counted['failed'] == 0, values['last failure']
        assert counted['rejected'] > 30  # of a busy machine; what has no time to be is dropped
        assert int(values['received']) == sent + good_ones
        assert 'expected' in values['last rejection']
        refusals = node.words().count('Rejected an image')
        assert 1 <= refusals <= 2 + took_s / 5  # throttled, and counted above
        assert node.alive()
        assert node.end() == 0
        assert 'Traceback' not in node.words()
    finally:
        node.end()
        observer.node.destroy_node()
