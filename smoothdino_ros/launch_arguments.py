# SPDX-License-Identifier: Apache-2.0
"""Arguments of the launch files, checked before anything starts; without launch and rclpy.

launch itself lets through a file that is not there, and a number that is none fails as late as in
the process that reads it. A ValueError here is a sentence, with which the launch ends.
"""

from __future__ import annotations

import math
import re
from pathlib import Path, PurePosixPath
from typing import Any

import yaml


def positive(name: str, given: str) -> float:
    """Give the number that an argument holds. Raises ValueError unless it is more than 0."""
    try:
        number = float(given)
    except ValueError:
        number = math.nan
    if not 0 < number < math.inf:
        raise ValueError(f'{name}: expected a number more than 0, got {given!r}')
    return number


def existing(name: str, given: str) -> str:
    """Give a path as it is. Raises ValueError where nothing is."""
    if not Path(given).exists():
        raise ValueError(f'{name}: no such file or folder: {given}')
    return given


def params_file_for(node: str, given: str) -> str:
    """Give the path of a YAML file that sets parameters of a node, by its full name.

    Raises ValueError where rcl would refuse the file or leave the node untouched by it.
    """
    if not Path(given).is_file():
        raise ValueError(f'params_file: no such file: {given}')
    try:
        content = yaml.safe_load(Path(given).read_text(encoding='utf-8'))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(
            f'params_file: {given} is no YAML: {" ".join(str(error).split())}'
        ) from error
    sections = _sections(content)
    if not sections:
        raise ValueError(
            f'params_file: expected parameters beneath a name of nodes and ros__parameters in '
            f"{given}, got none: put them under '/**:' and 'ros__parameters:', as "
            'config/depth.yaml has them'
        )
    if not any(_fits(section, node) for section in sections):
        raise ValueError(
            f'params_file: expected parameters of {node} in {given}, got those of '
            f"{', '.join(sections)}: put them under {node} or '/**'"
        )
    return given


def _sections(content: Any, name: str = '') -> list[str]:
    """Names of nodes for which there are parameters; a namespace may be a level of its own."""
    if not isinstance(content, dict):
        return []
    found = [name] if name and isinstance(content.get('ros__parameters'), dict) else []
    for key, value in content.items():
        if key != 'ros__parameters':
            found += _sections(value, f'{name}/{key}'.replace('//', '/'))
    return found


def _fits(section: str, node: str) -> bool:
    """Tell whether rcl takes a section for a node: * is one part of its name, ** any number."""
    wild = {'*': '/[^/]+', '**': '(/[^/]+)*'}
    parts = section.strip('/').split('/')
    return bool(re.fullmatch(''.join(wild.get(p, f'/{re.escape(p)}') for p in parts), node))


def topic_in_bag(topic: str, bag: str) -> None:
    """Check that a bag has a topic, by its full name or with /compressed behind it.

    Raises ValueError with the topics of images that there are. A bag without metadata, such as a
    single file, is left to its player.
    """
    try:
        metadata = yaml.safe_load((Path(bag) / 'metadata.yaml').read_text(encoding='utf-8'))
        topics = {
            one['topic_metadata']['name']: str(one['topic_metadata']['type'])
            for one in metadata['rosbag2_bagfile_information']['topics_with_message_count']
        }
    except (OSError, ValueError, yaml.YAMLError, LookupError, TypeError):
        return  # what the player says of it is told then
    if not {topic, f'{topic}/compressed'} & topics.keys():
        images = sorted(name for name, kind in topics.items() if 'Image' in kind)
        raise ValueError(
            f'image: expected a topic of {bag}, got {topic}: its images are on '
            f'{", ".join(images) or "none"}'
        )


def full_name(namespace: str, name: str) -> str:
    """Give the full name of a node or topic: within the namespace, unless it is one already."""
    return str(PurePosixPath('/', namespace, name))
