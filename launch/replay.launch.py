# SPDX-License-Identifier: Apache-2.0
"""The depth of a bag as it plays: ros2 launch smoothdino_ros replay.launch.py bag:=B image:=T

Everything runs in the bag's time (use_sim_time). The bag starts when the node is active, so that
no frame is lost to the loading of the model. Takes the arguments of depth.launch.py as well.
"""

from pathlib import Path

from launch import LaunchContext, LaunchDescription
from launch.actions import (
    DeclareLaunchArgument,
    ExecuteProcess,
    IncludeLaunchDescription,
    OpaqueFunction,
    RegisterEventHandler,
    SetEnvironmentVariable,
)
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration
from launch_ros.event_handlers import OnStateTransition

from smoothdino_ros.fast_dds import profile_environment

HERE = Path(__file__).resolve().parent
CLOCK_HZ = '100'
ARGUMENTS = (
    DeclareLaunchArgument('bag', description='The bag to play: a folder or a single file.'),
    DeclareLaunchArgument(
        'image',
        description='Topic of the images in the bag; with image_transport: compressed in '
        'params_file, without its /compressed.',
    ),
    DeclareLaunchArgument(
        'loop',
        default_value='false',
        choices=['true', 'false'],
        description='Whether the bag starts again at its end; the node then forgets what it saw.',
    ),
    DeclareLaunchArgument(
        'rate',
        default_value='1.0',
        description='Speed, 1.0 as recorded; slower lets the node answer more of the frames.',
    ),
)


def player(context: LaunchContext) -> list[ExecuteProcess]:
    bag, rate, loop = (
        LaunchConfiguration(name).perform(context) for name in ('bag', 'rate', 'loop')
    )
    options = ['--clock', CLOCK_HZ, '--rate', rate, '--disable-keyboard-controls']
    command = ['ros2', 'bag', 'play', bag, *options, *(['--loop'] if loop == 'true' else [])]
    return [ExecuteProcess(cmd=command, name='player', output='screen')]


def generate_launch_description() -> LaunchDescription:
    depth = IncludeLaunchDescription(
        PythonLaunchDescriptionSource(str(HERE / 'depth.launch.py')),
        launch_arguments={'use_sim_time': 'true'}.items(),
    )
    play = RegisterEventHandler(
        OnStateTransition(
            goal_state='active', entities=[OpaqueFunction(function=player)], handle_once=True
        )
    )
    # For the player, which sends the images; whoever has a profile already keeps it.
    profile = [SetEnvironmentVariable(*one) for one in profile_environment().items()]
    return LaunchDescription([*ARGUMENTS, *profile, play, depth])
