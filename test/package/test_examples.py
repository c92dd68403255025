# SPDX-License-Identifier: Apache-2.0
"""The files that other programs read agree with the node and the package."""

import json
import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
import yaml

from smoothdino_ros.parameters import NodeParameters

ROOT = Path(__file__).parents[2]
OUTPUTS = {'/depth/image', '/depth/camera_info', '/depth/points', '/depth/image_color'}
PAGES = [*ROOT.glob('*.md'), *(ROOT / 'docs').glob('*.md')]
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


def test_what_the_dockerfile_copies_and_starts_is_there():
    text = (ROOT / 'docker' / 'Dockerfile').read_text()
    for source in re.findall(r'^COPY (\S+) ', text, re.MULTILINE):
        assert (ROOT / source).exists(), source
    (started,) = re.findall(r'^CMD (\[.*\])$', text, re.MULTILINE)
    assert (ROOT / 'launch' / json.loads(started)[-1]).is_file()
    workflow = yaml.safe_load((ROOT / '.github' / 'workflows' / 'ci.yml').read_text())
    assert workflow['jobs']['ros']['strategy']['matrix']['distro'] == ['humble', 'jazzy']
    commands = '\n'.join(step.get('run', '') for step in workflow['jobs']['ros']['steps'])
    (tested,) = re.findall(r'launch_test src/smoothdino_ros/(\S+)', commands)
    assert (ROOT / tested).is_file()


def test_the_changelog_is_one_that_bloom_reads_and_tells_of_the_version():
    changelog = pytest.importorskip('catkin_pkg.changelog').get_changelog_from_path(ROOT)
    versions = {version: entries for version, _, entries in changelog.foreach_version()}
    assert ElementTree.parse(ROOT / 'package.xml').findtext('version') in versions
    assert all(versions.values())


@pytest.mark.parametrize('page', PAGES, ids=lambda page: page.name)
def test_a_page_links_to_files_that_there_are(page):
    for target in re.findall(r'\]\(([^)#]+)', page.read_text()):
        assert '://' in target or (page.parent / target).exists(), target


@pytest.mark.parametrize('page', ['docs/architecture.md', 'CONTRIBUTING.md'])
def test_the_files_that_a_page_sends_a_reader_to_are_there(page):
    named = re.findall(r'`([a-z_]+/[\w/.-]+)`', (ROOT / page).read_text())
    assert named
    for name in named:
        assert (ROOT / name).exists(), name


def test_a_first_visit_ends_within_150_lines_and_asks_only_for_targets_that_there_are():
    readme = (ROOT / 'README.md').read_text()
    assert len(readme.splitlines()) <= 150
    targets = set(re.findall(r'^([a-z-]+):(?!=)', (ROOT / 'Makefile').read_text(), re.MULTILINE))
    texts = [readme, *(page.read_text() for page in PAGES)]
    wanted = {name for text in texts for name in re.findall(r'(?:^|`)make ([a-z-]+)', text, re.M)}
    assert {'demo', 'test'} <= wanted <= targets
