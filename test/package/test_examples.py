# SPDX-License-Identifier: Apache-2.0
"""The files that other programs read agree with the node and the package."""

import json
import re
from pathlib import Path

import yaml

from smoothdino_ros.parameters import NodeParameters

ROOT = Path(__file__).parents[2]
OUTPUTS = {'/depth/image', '/depth/camera_info', '/depth/points', '/depth/image_color'}
DEMO_CAMERA = {'/camera/image', '/camera/camera_info'}


def leaves(layout) -> list[str]:
    if isinstance(layout, str):
        return [layout]
    return leaves(layout['first']) + leaves(layout['second'])


def test_the_foxglove_layout_shows_each_of_its_panels_once_and_topics_that_there_are():
    text = (ROOT / 'config' / 'foxglove.json').read_text()
    layout = json.loads(text)
    assert sorted(leaves(layout['layout'])) == sorted(layout['configById'])
    topics = set(re.findall(r'"(/[a-z_/]+)"', text))
    assert {'/depth/image', '/depth/points', '/diagnostics'} <= topics
    assert topics <= OUTPUTS | DEMO_CAMERA | {'/diagnostics'}
    depth = layout['configById']['Image!depth']['imageMode']
    assert depth['maxValue'] == NodeParameters().max_depth_m


def test_the_nav2_example_clears_beyond_what_it_marks_and_within_what_the_node_sees():
    everything = yaml.safe_load((ROOT / 'config' / 'nav2_depth.yaml').read_text())
    costmap = everything['local_costmap']['local_costmap']['ros__parameters']
    assert set(costmap['plugins']) <= set(costmap)
    layer = costmap['voxel_layer']
    depth = layer[layer['observation_sources']]
    assert depth['topic'] in OUTPUTS
    node = NodeParameters()
    assert node.min_depth_m < depth['obstacle_max_range'] < depth['raytrace_max_range']
    assert depth['raytrace_max_range'] <= node.max_depth_m
    assert layer['z_voxels'] <= 16  # a column is one 32-bit word
    top = layer['origin_z'] + layer['z_voxels'] * layer['z_resolution']
    assert depth['max_obstacle_height'] <= top
