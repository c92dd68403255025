# SPDX-License-Identifier: Apache-2.0
"""What a node tells of its environment, takes from its clock and asks of the network."""

import json
import os
import re
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest

rclpy = pytest.importorskip('rclpy', reason='needs ROS 2 (rclpy)')

from builtin_interfaces.msg import Time
from rcl_interfaces.msg import Log
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import Image

from support.node_in_this_process import GOOD
from support.ros_processes import ROOT, Observer, depth_node
from support.single_pictures import Camera, diagnosed, identity_holds, latest

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures('dds')]


@pytest.fixture(scope='module')
def secretive(tmp_path_factory, dds):
    """A node under simulated time in an environment with secrets, its model at first broken."""
    home = tmp_path_factory.mktemp('home-of-nobody')
    snapshot = home / '.cache/huggingface/hub/models--nobody--broken/snapshots/abc'
    snapshot.mkdir(parents=True)
    (snapshot / 'config.json').write_text('no configuration')
    (snapshot / 'model.safetensors').write_bytes(b'no weights')
    (snapshot.parents[1] / 'refs').mkdir()
    (snapshot.parents[1] / 'refs' / 'main').write_text('abc')
    secrets = {'HF_TOKEN': 'hf_swordfish', 'ROBOT_PASSWORD': 'opensesame', 'HOME': str(home)}
    with ExitStack() as stack:
        with pytest.MonkeyPatch.context() as patch:  # of this process only until the node is there
            for name, value in secrets.items():
                patch.setenv(name, value)
            for name in ('HF_HOME', 'HF_HUB_CACHE', 'XDG_CACHE_HOME'):
                patch.delenv(name, raising=False)
            node = depth_node(
                tmp_path_factory.mktemp('node') / 'log.txt',
                *('-p', 'model:=nobody/broken', '-p', 'max_depth_m:=1000'),
                *('-p', 'use_sim_time:=true', '-p', 'diagnostics_period_s:=0.2'),
                *('-r', '__ns:=/quiet'),
            )
            process = stack.enter_context(node)
        yield process, list(secrets.values())


def test_nothing_said_reveals_the_environment(secretive, tiny_model_dir):
    node, secrets = secretive
    observer, said = Observer('/quiet'), []
    observer.node.create_subscription(Log, '/rosout', lambda log: said.append(log.msg), 100)
    try:
        assert observer.wait_for(lambda: 'Cannot configure' in node.words(), 120), node.words()
        assert observer.state() == 'unconfigured'
        assert observer.wait_for(lambda: diagnosed(observer, 'quiet/depth'))
        assert not observer.transition('configure')
        observer.set(device='cuda:77')
        assert not observer.transition('configure')
        home = Path(secrets[-1])
        observer.set(device='cpu', model=str(home / 'absent'))
        assert not observer.transition('configure')
        observer.set(model='smoothdino-small', adapter=str(home / 'absent.pth'))
        assert not observer.transition('configure')
        (home / 'model').symlink_to(tiny_model_dir)
        observer.set(model=str(home / 'model'), adapter='')
        assert observer.transition('configure'), node.words()
        assert observer.transition('activate')
        for number, message in enumerate(
            ({'encoding': '$HF_TOKEN', 'data': b'x'}, {'encoding': '~'}), 1
        ):
            images = observer.node.create_publisher(Image, 'image', 5)
            assert observer.wait_for(images.get_subscription_count)
            observer.wait_until_known()
            images.publish(Image(height=1, width=1, step=1, **message))
            assert observer.wait_for(lambda n=number: rejected(observer) == n)
        statuses = [str(one) for one in diagnosed(observer, 'quiet/depth')]
        words = [node.words(), *said, *statuses]
        assert said
        assert any('Cannot configure' in one for one in statuses)
        assert any('Rejected' in one for one in words)
        assert any('~/model' in one for one in statuses)  # enough to find it, for its owner
        for secret in secrets:
            assert not [one for one in words if secret in one]
    finally:
        observer.node.destroy_node()


def rejected(observer: Observer) -> int:
    """As last told of."""
    values = diagnosed(observer, 'quiet/depth')[-1].status[-1].values
    return next((int(one.value) for one in values if one.key == 'rejected'), 0)


def test_jumps_of_a_simulated_clock(secretive):
    """After the test above, which leaves the node active."""
    node, _ = secretive
    observer = Observer('/quiet')
    clock = observer.node.create_publisher(Clock, '/clock', 10)
    camera = Camera(node, observer)
    try:
        assert observer.state() == 'active'
        assert observer.wait_for(clock.get_subscription_count)
        for sec in (5000, 5001, 8600, 1400, 1, 2**31 - 1, 10):
            clock.publish(Clock(clock=Time(sec=sec)))
            assert camera.answered(GOOD, sec * 10**9), sec
            latest(observer, 'quiet/depth')  # goes on, although the clock stands still
        _, values = latest(observer, 'quiet/depth')
        assert values['last reset'].startswith('stamp went back')
        assert identity_holds(values)
        assert int(values['failed']) == 0
    finally:
        observer.node.destroy_node()


NETWORK = r"""
import dataclasses, json, sys

attempts = []
def watch(event, arguments):
    if event in ('socket.getaddrinfo', 'socket.gethostbyname', 'socket.connect', 'socket.sendto'):
        attempts.append(f'{event} {arguments[1:]}')
        raise OSError('the test allows no network')
sys.addaudithook(watch)

import rclpy
from rclpy.parameter import Parameter
from smoothdino_ros.depth_node import DepthNode
from smoothdino_ros.parameters import NodeParameters

model, downloading = sys.argv[1:]
rclpy.init()
node = DepthNode()
texts = [f.name for f in dataclasses.fields(NodeParameters) if isinstance(f.default, str)]
urls = ('https://example.org/model', 'ftp://example.org', 'nobody/nothing', '//example.org/x')
cases = [{name: value} for name in texts if name != 'model' for value in urls]
cases += [{'cameras': list(urls)}, {'adapter': 'none'}, {'temporal': False}, {}]
cases += [{'model': m} for m in ('smoothdino-small', 'https://example.org/model',
                                 '//example.org/x', 'hf://nobody/nothing', '/absent', 'nobody',
                                 'a/b/c')]
configured = 0
def configure(case):
    values = {f.name: f.default for f in dataclasses.fields(NodeParameters)}
    values = {k: list(v) or [''] if isinstance(v, tuple) else v for k, v in values.items()}
    values |= {'model': model} | case
    node.set_parameters([Parameter(k, value=v) for k, v in values.items()])
    done = node.trigger_configure()
    if done == done.SUCCESS:
        node.trigger_cleanup()
    return done == done.SUCCESS
for case in cases:
    configured += configure(case)
without = list(attempts)
configure({'model': downloading})
print(json.dumps({'configured': configured, 'without': without, 'with': attempts}))
node.destroy_node()
rclpy.shutdown()
"""


def test_only_a_model_to_download_leads_to_the_network(tiny_model_dir, tmp_path, dds):
    environment = {k: v for k, v in os.environ.items() if not re.match('HF_|.*_proxy', k)}
    done = subprocess.run(
        [sys.executable, '-c', NETWORK, str(tiny_model_dir), 'nobody/nothing'],
        cwd=ROOT,
        env=environment | {'HF_HOME': str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout.splitlines()[-1])
    assert said['configured'] >= 4, done.stderr
    assert said['without'] == []
    assert said['with'], 'a model to download should have led to an attempt'
