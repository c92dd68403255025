# SPDX-License-Identifier: Apache-2.0
"""The Fast DDS profile with room for whole images, for launch files and demo; without rclpy."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

OLD_NAME, NEW_NAME = 'FASTRTPS_DEFAULT_PROFILES_FILE', 'FASTDDS_DEFAULT_PROFILES_FILE'
_WITH_THE_NEW_NAME = ('kilted', 'lyrical', 'rolling')  # where the old one draws a warning


def profile_environment(environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Give the variable that names the profile, in a clone or in what colcon installed.

    It is for the process that *sends* images, above all. Whoever has set a profile keeps it.
    """
    if {OLD_NAME, NEW_NAME} & set(environment):
        return {}
    prefixes = filter(None, environment.get('AMENT_PREFIX_PATH', '').split(os.pathsep))
    folders = [
        Path(__file__).resolve().parents[1],
        *(Path(prefix) / 'share' / 'smoothdino_ros' for prefix in prefixes),
    ]
    files = (folder / 'config' / 'fastdds.xml' for folder in folders)
    profile = next((file for file in files if file.is_file()), None)
    if profile is None:
        return {}
    renamed = environment.get('ROS_DISTRO') in _WITH_THE_NEW_NAME
    return {NEW_NAME if renamed else OLD_NAME: str(profile)}
