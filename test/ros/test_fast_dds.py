# SPDX-License-Identifier: Apache-2.0
"""One rule says which variable names the profile, and that a user's own is kept."""

from pathlib import Path

import pytest

from smoothdino_ros.fast_dds import NEW_NAME, OLD_NAME, profile_environment

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ('distro', 'name'),
    [('humble', OLD_NAME), ('jazzy', OLD_NAME), (None, OLD_NAME), ('kilted', NEW_NAME)],
)
def test_the_variable_is_the_one_that_the_distribution_reads(distro, name):
    environment = {'ROS_DISTRO': distro} if distro else {}
    assert profile_environment(environment) == {name: str(ROOT / 'config' / 'fastdds.xml')}


@pytest.mark.parametrize('name', [OLD_NAME, NEW_NAME])
def test_whoever_has_a_profile_keeps_it(name):
    assert profile_environment({name: '/mine.xml', 'ROS_DISTRO': 'kilted'}) == {}
