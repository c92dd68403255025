# SPDX-License-Identifier: Apache-2.0
"""What the figures of a busy machine are held against."""

import pytest

pytest.importorskip('rclpy', reason='needs ROS 2 (rclpy)')

from benchmarks.busy import GOALS, NODES, QUIET, report, scenes


@pytest.mark.parametrize(('times', 'verdict'), [(1.2, 'met'), (10.0, 'not met')])
def test_each_goal_is_over_the_quiet_machine_of_the_same_node(capsys, times, verdict):
    order = list(scenes(cores=2))
    figures = {'p50 ms': 50.0, 'p99 ms': 60.0, 'cpu ms': 90.0}
    busier = {name: times * value for name, value in figures.items()}
    report({(s, node): figures if s == QUIET else busier for s in order for node in NODES}, order)
    *_, goals = capsys.readouterr().out.split('\n\n')
    of_busy = [line for line in goals.splitlines() if 'over quiet' in line]
    assert len(of_busy) == sum(len(one) for one in GOALS.values())
    assert all(line.endswith(f'| {times:.2f} | {verdict} |') for line in of_busy)
    assert '| 1.00 | met |' in goals  # quiet, beside threads that spin
