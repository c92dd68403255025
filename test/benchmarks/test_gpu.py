# SPDX-License-Identifier: Apache-2.0
"""`make gpu`: what it says where it cannot run, and its verdict where it did."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import gpu

ROOT = Path(__file__).parents[2]


def latency(*, machine='NVIDIA H100 80GB HBM3; AMD EPYC, 16 threads', ours_ms=3.0, **ratios):
    return {
        'date': '2026-01-01',
        'machine': machine,
        'model': 'small',
        'size': '480x640',
        'picked': ['torch', 'bf16'],
        'ours_ms': ours_ms,
        'ratios': {
            'published_over_ours': 9.0,
            'temporal_over_per_frame': 1.05,
            'four_cameras_over_one': 2.0,
            'roofline_share': 0.5,
            **ratios,
        },
    }


PASSED = {'passed': 10, 'failed': 0, 'skipped': 1}


def missed(latency, tests=PASSED) -> set[str]:
    return {one['what'] for one in gpu.judged(latency, tests) if one['met'] is False}


@pytest.mark.skipif(not gpu.missing_gpu(), reason='there is a GPU: make gpu runs')
@pytest.mark.parametrize(
    'command', [['-m', 'benchmarks.gpu'], ['make', 'gpu', f'PYTHON={sys.executable}']], ids=str
)
def test_without_a_gpu_it_says_in_a_sentence_what_is_missing_and_exits_2(command, tmp_path):
    if command[0] != 'make':
        command = [sys.executable, *command]
    elif shutil.which('make') is None:
        pytest.skip('make is not installed')
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert ran.returncode == 2
    said, printed = (
        [line for line in text.splitlines() if not re.match(r'make(\[\d+\])?: ', line)]
        for text in (ran.stderr, ran.stdout)  # without what make says of itself
    )
    assert len(said) == 1
    assert re.fullmatch(r'make gpu: an NVIDIA GPU .*missing: [^.]*(\.so\.1)?[^.]*\.', said[0])
    assert not printed


def test_an_interpreter_that_lacks_packages_is_named_with_them(monkeypatch):
    monkeypatch.setattr(gpu, 'NEEDED', ('json', 'no_such_package', 'nor_this_one'))
    assert gpu.missing_packages() == f'{sys.executable} lacks no_such_package, nor_this_one.'


def test_it_runs_every_test_that_needs_a_gpu():
    marked = {
        str(path.relative_to(ROOT))
        for path in (ROOT / 'test').rglob('test_*.py')
        if 'pytest.mark.gpu' + ',' in path.read_text()
    }
    assert marked == set(gpu.TESTS)


def test_the_verdict_counts_each_goal():
    assert missed(latency()) == set()
    for name, value in {
        'published_over_ours': 7.9,
        'temporal_over_per_frame': 1.11,
        'four_cameras_over_one': 2.3,
    }.items():
        assert missed(latency(**{name: value})) == {name}
    assert missed(latency(roofline_share=0.01)) == set()


def test_four_milliseconds_are_a_goal_of_the_fastest_cards_alone():
    assert missed(latency(ours_ms=4.1)) == {'ours_ms'}
    assert missed(latency(ours_ms=4.1, machine='NVIDIA RTX A2000; AMD EPYC H100')) == set()


@pytest.mark.parametrize('tests', [{'failed': 1}, {'passed': 0, 'skipped': 11}])
def test_tests_that_fail_or_that_none_ran_of_are_a_miss(tests):
    assert missed(latency(), PASSED | tests) == {'tests failed'}


def test_the_report_names_machine_figures_and_verdict():
    text = gpu.as_markdown(gpu.reported(latency(), PASSED))
    assert 'NVIDIA H100 80GB HBM3' in text
    assert '| published_over_ours | ≥ 8 | 9 | met |' in text
    assert '| roofline_share |  | 0.5 |  |' in text
    assert '10 passed, 0 failed, 1 skipped' in text
    assert text.endswith('All goals are met.\n')
    slow = gpu.reported(latency(published_over_ours=5.0), PASSED)
    assert '| published_over_ours | ≥ 8 | 5 | missed |' in gpu.as_markdown(slow)
    assert slow['verdict'] == 'Missed: published_over_ours.'
