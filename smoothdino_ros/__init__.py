# SPDX-License-Identifier: Apache-2.0
"""The ROS 2 side: a lifecycle node that turns camera topics into metric depth topics."""
