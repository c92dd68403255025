# SPDX-License-Identifier: Apache-2.0
"""The set-ups beside `make`: the Dockerfile, the workflow and what the README says of ROS 2."""

import json
import os
import shlex
import subprocess
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
# The keys of package.xml that a virtual environment brings.
FROM_PIP = {
    'python3-torch',
    'python3-transformers-pip',
    'python3-huggingface-hub-pip',
    'python3-rosbags-pip',
}


def lines(text: str) -> list[str]:
    """Those that are no comment, continued ones as one."""
    kept = [line for line in text.splitlines() if not line.lstrip().startswith('#')]
    return '\n'.join(kept).replace('\\\n', ' ').splitlines()


def commands(script: str) -> list[list[str]]:
    """The words of each command of a shell script; what is conditional stands as any other."""
    found = []
    for line in lines(script):
        words: list[str] = []
        reader = shlex.shlex(line, posix=True, punctuation_chars='&|;')
        reader.whitespace_split = True
        for word in reader:
            if set(word) <= set('&|;'):
                found.append(words)
                words = []
            else:
                words.append(word)
        found.append(words)
    return [words for words in found if words]


def dockerfile() -> list[tuple[str, str]]:
    """Its instructions, each with the text behind it."""
    parts = [line.partition(' ') for line in lines((ROOT / 'docker/Dockerfile').read_text())]
    return [(name, text.strip()) for name, _, text in parts if name]


def workflow() -> dict:
    return yaml.safe_load((ROOT / '.github' / 'workflows' / 'ci.yml').read_text())


def scripts() -> dict[str, str]:
    """By their place, the shell scripts that set up an environment with rosdep."""
    steps = workflow()['jobs']['ros']['steps']
    pages = (ROOT / 'README.md', *(ROOT / 'docs').glob('*.md'))
    blocks = {  # between ```bash and ```
        page.name: '\n'.join(
            block.removeprefix('bash\n')
            for block in page.read_text().split('```')[1::2]
            if block.startswith('bash\n') and 'rosdep install' in block
        )
        for page in pages
    }
    return {
        'Dockerfile': '\n'.join(text for name, text in dockerfile() if name == 'RUN'),
        'ci.yml': '\n'.join(step.get('run', '') for step in steps),
        **{name: block for name, block in blocks.items() if block},
    }


def test_rosdep_is_asked_for_what_pip_does_not_bring():
    manifest = ElementTree.parse(ROOT / 'package.xml')
    assert {element.text for element in manifest.findall('exec_depend')} >= FROM_PIP
    assert {'Dockerfile', 'ci.yml'} < scripts().keys()  # and a page for people
    for place, script in scripts().items():
        asked = [words for words in commands(script) if words[:2] == ['rosdep', 'install']]
        assert len(asked) == 1, place
        (words,) = asked
        assert '--skip-keys' in words, f'{place}: rosdep would install {FROM_PIP} by itself'
        assert set(words[words.index('--skip-keys') + 1].split()) == FROM_PIP, place


def test_the_image_holds_and_starts_what_there_is():
    instructions = dockerfile()
    copied = [shlex.split(text)[:-1] for name, text in instructions if name == 'COPY']
    for source in (one for sources in copied for one in sources):
        assert (ROOT / source).exists(), source
    of = dict(instructions)  # of several of a name the last, as Docker takes it
    assert of['STOPSIGNAL'] == 'SIGINT'  # on SIGTERM `ros2 launch` leaves the node behind
    ros2, launch, package, file = json.loads(of['CMD'])
    assert (ros2, launch, package) == ('ros2', 'launch', 'smoothdino_ros')
    assert (ROOT / 'launch' / file).is_file()
    (entry,) = json.loads(of['ENTRYPOINT'])
    assert ['docker/entrypoint.sh', entry] in [
        shlex.split(text) for name, text in instructions if name == 'COPY'
    ]


def test_a_sourced_ros_holds_pip_to_its_numpy_and_to_the_pytest_of_its_launch_testing():
    def pins(**environment: str) -> list[str]:
        command = ['make', '--silent', 'pins']
        known = {k: v for k, v in os.environ.items() if k not in ('ROS_DISTRO', 'MAKEFLAGS')}
        return subprocess.check_output(
            command, cwd=ROOT, env=known | environment, text=True
        ).splitlines()

    sourced, alone = pins(ROS_DISTRO='jazzy'), pins()
    assert {'numpy<2', 'pytest<9'} <= set(sourced)
    for name in ('numpy==', 'pytest==', 'opencv-python=='):
        assert any(line.startswith(name) for line in alone)
        assert not any(line.startswith(name) for line in sourced)
    assert set(sourced) - {'numpy<2', 'pytest<9'} < set(alone)


def test_the_workflow_tests_both_distributions_with_files_that_there_are():
    job = workflow()['jobs']['ros']
    assert job['strategy']['matrix']['distro'] == ['humble', 'jazzy']
    words = [words for step in job['steps'] for words in commands(step.get('run', ''))]
    launched = [one[1:] for one in words if one[0] == 'launch_test']
    place = next(step['with']['path'] for step in job['steps'] if 'with' in step)
    assert launched
    for (file,) in launched:
        assert (ROOT / Path(file).relative_to(place)).is_file()
    assert ['python', '-m', 'pytest'] in words


def test_every_action_is_pinned_to_a_commit():
    used = [
        step['uses']
        for job in workflow()['jobs'].values()
        for step in job['steps']
        if 'uses' in step
    ]
    assert used
    for one in used:
        name, _, commit = one.partition('@')
        assert len(commit) == 40, f'{name}: expected a commit of 40 digits, got {commit!r}'
        assert int(commit, 16)


@pytest.mark.parametrize(
    ('script', 'expected'),
    [
        ('a b && c "d e" # f', [['a', 'b'], ['c', 'd e']]),
        ('a \\\n  --b\n# c\nd; e | f', [['a', '--b'], ['d'], ['e'], ['f']]),
    ],
)
def test_commands_are_read_as_a_shell_reads_them(script, expected):
    assert commands(script) == expected
