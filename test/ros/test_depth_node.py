# SPDX-License-Identifier: Apache-2.0
"""The node as others meet it: real processes over DDS."""

import os
import signal
from pathlib import Path

import numpy as np
import pytest

rclpy = pytest.importorskip('rclpy', reason='needs ROS 2 (rclpy)')

from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from rcl_interfaces.msg import ParameterType
from rclpy.qos import ReliabilityPolicy
from std_srvs.srv import SetBool, Trigger

from smoothdino_model.pipeline import CameraFrame, DepthPipeline
from smoothdino_model.recordings.images import rgb_from_compressed
from smoothdino_model.room.sample_room import SampleRoom
from support.ros_processes import Observer, Process, depth_m, depth_node, stamp_ns

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures('dds'), pytest.mark.timeout(900)]
START_NS, PERIOD_NS = 1_000_000_000, 33_333_333


@pytest.fixture(scope='module')
def frames() -> np.ndarray:
    """(6, H, W, 3) RGB, of an NYU clip where there is one."""
    clips = Path(os.environ.get('NYU_ROOT') or 'absent') / 'nyu2_train'
    if clips.is_dir():
        clip = sorted(clips.iterdir())[0]
        return np.stack(
            [rgb_from_compressed((clip / f'{i}.jpg').read_bytes()) for i in range(1, 7)]
        )
    return np.stack([SampleRoom(7).frame(i).rgb for i in range(6)])


@pytest.fixture(scope='module')
def played(frames, tmp_path_factory) -> str:
    path = tmp_path_factory.mktemp('frames') / 'frames.npy'
    np.save(path, frames)
    return str(path)


@pytest.fixture(scope='module')
def node(tiny_model_dir, tmp_path_factory):
    log = tmp_path_factory.mktemp('node') / 'log.txt'
    arguments = ['-p', f'model:={tiny_model_dir}', '-p', 'max_depth_m:=1000', '-p', 'max_gap_s:=2']
    arguments += ['-p', 'diagnostics_period_s:=0.2']  # which the camera waits for
    with depth_node(log, *arguments) as process:
        yield process


@pytest.fixture(scope='module')
def observer(node):
    one = Observer()
    assert one.wait_for(lambda: one.state() == 'active', 200), node.words()
    yield one
    one.node.destroy_node()


def expected(model_dir, frames, stamps_ns, max_depth_m: float) -> list[np.ndarray]:
    """The pipeline's own depths of the same frames, put into the node's range.

    The focal length is that of the camera process.
    """
    pipeline = DepthPipeline.from_pretrained(model_dir, max_gap_s=2.0)
    depths = []
    for at_ns in stamps_ns:
        rgb = frames[(at_ns - START_NS) // PERIOD_NS % len(frames)]
        frame = CameraFrame(rgb, at_ns, 'camera_optical_frame', focal=500 / rgb.shape[1])
        depth = pipeline.step({'': frame})[''].depth_m
        depths.append(np.where(depth > max_depth_m, np.inf, np.where(depth < 0.1, -np.inf, depth)))
    return depths


def assert_same(messages, depths) -> None:
    for message, depth in zip(messages, depths, strict=True):
        np.testing.assert_allclose(depth_m(message), depth, rtol=1e-4, atol=1e-4)


def differ(one: np.ndarray, other: np.ndarray) -> bool:
    finite = np.isfinite(one) & np.isfinite(other)
    return bool(np.abs(one[finite] - other[finite]).max() > 1e-2)


def test_every_answer_is_the_pipelines(node, observer, frames, played, tiny_model_dir, tmp_path):
    observer.play(tmp_path / 'log', played, '--laps', '2')

    stamps_ns = [stamp_ns(one) for one in observer.reliable]
    assert stamps_ns == [START_NS + i * PERIOD_NS for i in range(6)] * 2, node.words()
    depths = expected(tiny_model_dir, frames, stamps_ns, 1000)
    assert_same(observer.reliable, depths)
    assert differ(depths[5], expected(tiny_model_dir, frames, [stamps_ns[5]], 1000)[0])
    assert np.array_equal(depths[6], depths[0])  # the second lap starts afresh
    assert {one.header.frame_id for one in observer.reliable} == {'camera_optical_frame'}

    assert set(map(stamp_ns, observer.best_effort)) <= set(stamps_ns)
    assert len(observer.best_effort) >= 6
    assert [stamp_ns(info) for info in observer.infos] == stamps_ns
    assert {info.header.frame_id for info in observer.infos} == {'camera_optical_frame'}
    assert {(info.width, info.height, info.k[0]) for info in observer.infos} == {(640, 480, 500.0)}


def test_garbage_in_mid_stream_is_rejected_and_the_next_frame_answered(
    node, observer, played, tmp_path
):
    observer.play(tmp_path / 'log', played, '--garbage-before', '3')

    assert len(observer.reliable) == 6
    observer.diagnostics.clear()
    assert observer.wait_for(lambda: observer.diagnostics)
    overall, camera = observer.diagnostics[-1].status
    assert overall.level == b'\0'
    values = {one.key: one.value for one in camera.values}
    assert int(values['rejected']) == 5
    assert 'no such encoding' in values['last rejection']
    assert node.words().count('Rejected') == 1  # said once, not five times


def test_reset_makes_the_next_frame_a_first_one(
    observer, frames, played, tiny_model_dir, tmp_path
):
    observer.play(tmp_path / 'log1', played)
    assert observer.call(Trigger, 'depth/reset', Trigger.Request()).success
    later_ns = START_NS + 6 * PERIOD_NS  # goes on where the last lap ended
    observer.play(tmp_path / 'log2', played, '--start-ns', str(later_ns))
    stamps_ns = [stamp_ns(one) for one in observer.reliable]
    assert stamps_ns[0] == later_ns
    assert_same(observer.reliable, expected(tiny_model_dir, frames, stamps_ns, 1000))


def test_parameters_while_active(observer, played, tmp_path):
    assert observer.set(device='cuda') == (
        'device is fixed while the node is configured, because the network is loaded by it: '
        'deactivate and clean up the node, set device, then configure it again.'
    )
    assert 'max_depth_m' in observer.set(max_depth_m=-1.0)
    assert 'Parameter max_depth_m: expected a number' in observer.set(max_depth_m='far')
    assert not observer.set(max_depth_m=3, depth_encoding='16UC1', max_rate_hz=0.5)
    assert observer.parameter_type('max_depth_m') == ParameterType.PARAMETER_DOUBLE
    observer.play(tmp_path / 'log', played, '--answer-within-s', '0.5')
    assert not observer.set(depth_encoding='32FC1', max_rate_hz=0, max_depth_m=1000.0)
    assert 1 <= len(observer.reliable) <= 3
    message = observer.reliable[0]
    assert message.encoding == '16UC1'
    assert 0 < np.frombuffer(message.data, '<u2').max() <= 3000


def test_set_enabled_and_lifecycle(observer, played, tmp_path):
    assert observer.transition('deactivate')
    assert observer.state() == 'inactive'
    assert not observer.call(Trigger, 'depth/reset', Trigger.Request()).success
    assert observer.transition('activate')
    request = ChangeState.Request()
    request.transition.id = Transition.TRANSITION_CLEANUP  # there is none from active
    client = observer.node.create_client(ChangeState, 'depth/change_state')
    assert client.wait_for_service(120.0)
    client.call_async(request)
    assert observer.state() == 'active'
    observer.call(SetBool, 'depth/set_enabled', SetBool.Request(data=False))
    observer.play(tmp_path / 'log1', played, '--answer-within-s', '0.1')
    assert not observer.reliable
    observer.call(SetBool, 'depth/set_enabled', SetBool.Request(data=True))
    observer.play(tmp_path / 'log2', played)
    assert len(observer.reliable) == 6


def test_what_is_wrong_can_be_put_right(tiny_model_dir, played, frames, tmp_path):
    image_topic = '/robot/front/image/compressed'
    process = Process(
        tmp_path / 'log',
        *('-m', 'smoothdino_ros.depth_node', '--ros-args', '-r', '__ns:=/robot'),
        *('-p', 'max_depth_m:=-3', '-p', f'model:={tmp_path}/absent', '-p', 'device:=cuda:77'),
        *('-p', 'cameras:=[front, rear]', '-p', 'image_transport:=compressed'),
        *('-p', 'max_depht_m:=5.0'),
        *('-p', f'qos_overrides.{image_topic}.subscription.reliability:=reliable'),
    )
    observer = Observer('/robot', 'front/')
    try:
        assert observer.state() == 'unconfigured', process.words()
        assert process.words().count('max_depht_m (is max_depth_m meant?)') == 1
        assert 'Parameter max_depth_m: expected 0 to 1000, got -3' in process.words()
        assert not observer.transition('configure')
        assert not observer.set(max_depth_m=1000)
        assert observer.parameter_type('max_depth_m') == ParameterType.PARAMETER_DOUBLE
        assert not observer.transition('configure')
        assert 'cuda:77' in process.words()
        assert not observer.set(device='cpu')
        assert not observer.transition('configure')
        assert str(tmp_path / 'absent') in process.words()
        assert observer.state() == 'unconfigured'

        assert not observer.set(model=str(tiny_model_dir))
        assert observer.transition('configure'), process.words()
        assert observer.transition('activate')
        assert observer.wait_for(lambda: observer.node.count_subscribers(image_topic))
        (reader,) = observer.node.get_subscriptions_info_by_topic(image_topic)
        assert reader.qos_profile.reliability == ReliabilityPolicy.RELIABLE
        camera = ('--prefix', 'front/', '--compressed', '--garbage-before', '2')
        observer.play(tmp_path / 'camera', played, *camera, '--ros-args', '-r', '__ns:=/robot')
        stamps_ns = [stamp_ns(one) for one in observer.reliable]
        assert len(stamps_ns) == 6
        assert_same(observer.reliable, expected(tiny_model_dir, frames, stamps_ns, 1000))
        for label in ('deactivate', 'cleanup', 'configure', 'activate'):
            assert observer.transition(label), label
    finally:
        observer.node.destroy_node()
        code = process.end(signal.SIGINT)
    assert code == 0, process.words()
    assert 'Traceback' not in process.words()
    faults = [line for line in process.words().splitlines() if 'Cannot configure' in line]
    assert len(faults) == 4


def test_two_nodes_of_one_name_are_told_of_once(tmp_path):
    def started(log: str, *names: str) -> Process:
        arguments = ('--ros-args', '-r', '__ns:=/twin', '-p', 'autostart:=false', *names)
        return Process(tmp_path / log, '-m', 'smoothdino_ros.depth_node', *arguments)

    def told(one: Process) -> int:
        return one.words().count('Another node is named /twin/depth as well')

    running = [started('1'), started('2'), started('3', '-r', '__node:=other')]
    observer = Observer('/twin')
    try:
        assert observer.wait_for(lambda: all(told(one) for one in running[:2]), 120)
        observer.wait_for(lambda: False, 2.5)  # two more looks
        assert [told(one) for one in running] == [1, 1, 0]
        assert 'namespace' in running[0].words()
    finally:
        observer.node.destroy_node()
        codes = [one.end() for one in running]
    assert codes == [0, 0, 0]


def test_an_interrupt_while_loading_ends_it(tiny_model_dir, tmp_path):
    arguments = ('--ros-args', '-r', '__ns:=/early', '-p', f'model:={tiny_model_dir}')
    process = Process(tmp_path / 'log', '-m', 'smoothdino_ros.depth_node', *arguments)
    observer = Observer('/early')
    topics = observer.node.get_publisher_names_and_types_by_node
    names = observer.node.get_node_names_and_namespaces
    assert observer.wait_for(lambda: ('depth', '/early') in names() and topics('depth', '/early'))
    assert process.end() == 0, process.words()
    assert 'Traceback' not in process.words()
    observer.node.destroy_node()


def test_sigterm_ends_it_without_a_traceback(node, observer):
    """The last test of this node: `node` ends here."""
    assert observer.state() == 'active'
    assert node.end(signal.SIGTERM) == 0
    assert 'Traceback' not in node.words()
