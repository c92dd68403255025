# SPDX-License-Identifier: Apache-2.0
"""The node on an NVIDIA GPU, over DDS; `make gpu` runs it."""

import signal

import numpy as np
import pytest
import torch

rclpy = pytest.importorskip('rclpy', reason='needs ROS 2 (rclpy)')

from smoothdino_model.pipeline import CameraFrame, DepthPipeline
from smoothdino_model.room.sample_room import SampleRoom
from support.ros_processes import Observer, Process, depth_m, stamp_ns

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.slow,
    pytest.mark.usefixtures('dds'),
    pytest.mark.skipif(not torch.cuda.is_available(), reason='needs an NVIDIA GPU: make gpu'),
]


def test_the_node_answers_with_the_depth_of_the_pipeline(tmp_path):
    frames = [SampleRoom(7).frame(i).rgb for i in range(24)]
    np.save(tmp_path / 'frames.npy', frames)
    settings = {'model': 'smoothdino-small', 'device': 'cuda'}
    settings |= {'precision': 'fp32', 'max_depth_m': 1000.0}
    arguments = [word for one in settings.items() for word in ('-p', '{}:={}'.format(*one))]
    node = Process(tmp_path / 'node', '-m', 'smoothdino_ros.depth_node', '--ros-args', *arguments)
    observer = Observer()
    try:
        assert observer.wait_for(lambda: observer.state() == 'active', 120), node.words()
        observer.play(tmp_path / 'log', str(tmp_path / 'frames.npy'))
        assert 'on cuda' in node.words()
        by_cpu = DepthPipeline.from_pretrained('smoothdino-small', device='cpu', precision='fp32')
        assert len(observer.reliable) == len(frames), node.words()
        for rgb, message in zip(frames, observer.reliable, strict=True):
            frame = CameraFrame(
                rgb, stamp_ns(message), message.header.frame_id, focal=500 / rgb.shape[1]
            )
            expected_m = by_cpu.step({'': frame})[''].depth_m
            np.testing.assert_allclose(depth_m(message), expected_m, rtol=1e-3)
        observer.diagnostics.clear()
        assert observer.wait_for(lambda: observer.diagnostics)
        values = {one.key: one.value for one in observer.diagnostics[-1].status[0].values}
        assert any('GPU' in key for key in values)
    finally:
        observer.node.destroy_node()
        node.end(signal.SIGTERM)
