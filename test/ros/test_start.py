# SPDX-License-Identifier: Apache-2.0
"""What a started node holds in memory, what its collector still looks through, and its threads."""

import signal

import pytest

rclpy = pytest.importorskip('rclpy', reason='needs ROS 2 (rclpy)')

from sensor_msgs.msg import Image

from support.node_in_this_process import good
from support.ros_processes import Observer, Process

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures('dds')]
# Of training, other engines, recordings, commands and pictures for people.
NOT_NEEDED = {
    *('lightning', 'pytorch_lightning', 'torchmetrics', 'tensorboard', 'training'),
    *('onnx', 'onnxruntime', 'onnxscript', 'openvino', 'torch_tensorrt'),
    *('rosbags', 'mcap', 'matplotlib', 'pandas', 'rerun', 'IPython', 'tqdm.notebook'),
    *('smoothdino_model.cli', 'smoothdino_model.room', 'smoothdino_ros.demo'),
}
AT_THE_END = """
import gc, sys, threading
from smoothdino_ros.depth_node import main
code = main()
print('modules', *sys.modules)
torch = sys.modules['torch']
other = threading.Thread(target=lambda: print('threads', torch.get_num_threads()))
other.start()
other.join()
print('collector', gc.isenabled(), gc.get_freeze_count(), len(gc.get_objects()))
sys.exit(code)
"""


@pytest.fixture(scope='module')
def last_words(tiny_model_dir, tmp_path_factory, dds) -> dict[str, list[str]]:
    """What a node says of itself that was active and has answered."""
    log = tmp_path_factory.mktemp('node') / 'log.txt'
    settings = ('-p', f'model:={tiny_model_dir}', '-p', 'threads:=3', '-p', 'engine:=torch')
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv('OMP_DISPLAY_ENV', 'true')  # OpenMP tells what it has found when it is loaded
        process = Process(log, '-c', AT_THE_END, '--ros-args', *settings)
    observer = Observer()
    images = observer.node.create_publisher(Image, 'image', 5)

    def shown_and_seen() -> bool:
        if images.get_subscription_count():
            images.publish(good(Image, 10**9))
        return bool(observer.reliable)

    try:
        assert observer.wait_for(shown_and_seen, 90), process.words()
    finally:
        observer.node.destroy_node()
        code = process.end(signal.SIGTERM)
    assert code == 0, process.words()
    lines = process.words().splitlines()
    return {'': lines} | {words[0]: words[1:] for words in map(str.split, lines) if words}


def test_a_node_that_answers_has_imported_nothing_that_it_does_not_need(last_words):
    modules = set(last_words['modules'])
    assert {'torch', 'transformers', 'smoothdino_ros.camera'} <= modules
    assert not modules & NOT_NEEDED


def test_its_collector_works_and_leaves_what_was_imported_alone(last_words):
    enabled, frozen, watched = last_words['collector']
    assert enabled == 'True'
    assert int(frozen) > 100_000
    assert int(watched) < 0.2 * int(frozen)


def test_it_works_with_the_threads_asked_for_and_none_of_them_spins(last_words):
    assert last_words['threads'] == ['3']
    assert sum('threads on the CPU: 3, as asked for' in line for line in last_words['']) == 1
    policies = {line.strip() for line in last_words[''] if 'OMP_WAIT_POLICY =' in line}
    assert {policy.split('=')[1].strip(" '") for policy in policies} == {'PASSIVE'}
