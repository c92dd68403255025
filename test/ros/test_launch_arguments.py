# SPDX-License-Identifier: Apache-2.0
"""What the launch files say of an argument that cannot be meant; no ROS is needed here."""

from pathlib import Path

import pytest

from smoothdino_ros.launch_arguments import (
    existing,
    full_name,
    params_file_for,
    positive,
    topic_in_bag,
)
from support.made_recordings import pictures, write_bag

CONFIG = Path(__file__).parents[2] / 'config' / 'depth.yaml'


@pytest.mark.parametrize('given', ['fast', '', '0', '-1', 'nan', 'inf'])
def test_a_rate_is_a_number_more_than_zero(given):
    with pytest.raises(ValueError, match=f"rate: expected a number more than 0, got '{given}'"):
        positive('rate', given)
    assert positive('rate', '2e-1') == 0.2


def test_a_path_is_there(tmp_path):
    assert existing('bag', str(tmp_path)) == str(tmp_path)
    with pytest.raises(ValueError, match='bag: no such file or folder: /nowhere'):
        existing('bag', '/nowhere')


@pytest.mark.parametrize(
    ('namespace', 'name', 'full'),
    [
        ('', 'depth', '/depth'),
        ('robot', 'depth', '/robot/depth'),
        ('/robot', 'image', '/robot/image'),
        ('robot', '/cam/image', '/cam/image'),
    ],
)
def test_a_name_is_completed_by_its_namespace(namespace, name, full):
    assert full_name(namespace, name) == full


@pytest.mark.parametrize(
    ('section', 'nodes'),  # as rclpy 7.1 takes them
    [
        ('/**', {'/depth', '/robot/depth'}),
        ('**', {'/depth', '/robot/depth'}),
        ('/*', {'/depth'}),
        ('depth', {'/depth'}),
        ('/robot/depth', {'/robot/depth'}),
        ('robot/depth', {'/robot/depth'}),
        ('/*/depth', {'/robot/depth'}),
        ('/**/depth', {'/depth', '/robot/depth'}),
        ('/camera', set()),
    ],
)
def test_a_params_file_counts_for_the_nodes_that_rcl_gives_it_to(tmp_path, section, nodes):
    file = tmp_path / 'params.yaml'
    file.write_text(f"'{section}':\n  ros__parameters:\n    model: smoothdino-small\n")
    for node in ('/depth', '/robot/depth'):
        if node in nodes:
            assert params_file_for(node, str(file)) == str(file)
        else:
            with pytest.raises(ValueError, match=f'expected parameters of {node} in .*: put them'):
                params_file_for(node, str(file))


def test_a_params_file_may_hold_those_of_others_and_namespaces_as_levels(tmp_path):
    file = tmp_path / 'params.yaml'
    file.write_text(
        'camera:\n  ros__parameters: {fps: 5}\nrobot:\n  depth:\n    ros__parameters: {a: 1}\n'
    )
    assert params_file_for('/robot/depth', str(file))
    with pytest.raises(ValueError, match='got those of /camera, /robot/depth: put them under'):
        params_file_for('/depth', str(file))
    assert params_file_for('/depth', str(CONFIG))


@pytest.mark.parametrize(
    ('text', 'said'),
    [
        (None, 'no such file'),
        ('model: smoothdino-small\n', 'got none: put them under'),
        ('/**:\n  model: smoothdino-small\n', 'got none: put them under'),
        ('/**:\n  ros__parameters:\n', 'got none: put them under'),
        ('', 'got none: put them under'),
        ('- 1\n', 'got none: put them under'),
        ('a: [1', 'is no YAML'),
    ],
)
def test_a_params_file_that_would_set_nothing_is_refused(tmp_path, text, said):
    file = tmp_path / 'params.yaml'
    if text is not None:
        file.write_text(text)
    with pytest.raises(ValueError, match=said) as caught:
        params_file_for('/depth', str(file))
    assert '\n' not in str(caught.value)


def test_the_topic_to_play_is_in_the_bag_as_far_as_its_metadata_tell(tmp_path):
    topics = ('/cam/image_raw', '/rear/image_raw/compressed')
    bag = write_bag(tmp_path / 'bag', pictures(2), topics=topics)
    topic_in_bag('/cam/image_raw', str(bag))
    topic_in_bag('/rear/image_raw', str(bag))
    with pytest.raises(ValueError, match=r'got /cam/image: its images are on /cam/image'):
        topic_in_bag('/cam/image', str(bag))
    (file,) = bag.glob('*.mcap')
    topic_in_bag('/cam/image', str(file))  # a file alone is left to the player
