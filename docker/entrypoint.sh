#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Runs its arguments where ROS 2, the environment with torch and this package are set up.
set -e
# shellcheck disable=SC1090,SC1091
{
    source "/opt/ros/$ROS_DISTRO/setup.bash"
    source /ws/.venv/bin/activate
    source /ws/install/setup.bash
}
exec "$@"
