# SPDX-License-Identifier: Apache-2.0
"""The depth of a bag as it plays: ros2 launch smoothdino_ros replay.launch.py bag:=B image:=T

Everything runs in the bag's time (use_sim_time). The bag starts when the node is active and both
have had the time to find each other, so that no frame is lost. The launch ends with the bag, and
with exit code 1 where player or node fail. Takes the arguments of depth.launch.py as well.
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
    Shutdown,
    TimerAction,
)
from launch.event_handlers import OnProcessExit
from launch.events.process import ProcessExited
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration
from launch_ros.event_handlers import OnStateTransition

from smoothdino_ros.fast_dds import profile_environment
from smoothdino_ros.launch_arguments import existing, full_name, positive, topic_in_bag

HERE = Path(__file__).resolve().parent
CLOCK_HZ = '100'
# The player waits for nobody, and what it sends before DDS has matched it with the node is lost:
# up to two and a half seconds, measured with Fast DDS, whose timers run in periods of three.
DISCOVERY_S = '4.0'
LAST_FRAMES_S = 3.0  # for the node to answer what it has received when the bag ends
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
    DeclareLaunchArgument(
        'use_sim_time',
        default_value='true',
        choices=['true', 'false'],
        description="Whether the node takes its time from the player's /clock, the bag's time.",
    ),
)


def checked(context: LaunchContext) -> None:
    """Before the node is started: what the player would refuse after the model is loaded."""
    bag, image, rate = (
        LaunchConfiguration(name).perform(context) for name in ('bag', 'image', 'rate')
    )
    namespace = context.launch_configurations.get('namespace', '')
    positive('rate', rate)
    topic_in_bag(full_name(namespace, image), existing('bag', bag))


def player(context: LaunchContext) -> list[ExecuteProcess]:
    bag, rate, loop = (
        LaunchConfiguration(name).perform(context) for name in ('bag', 'rate', 'loop')
    )
    options = ['--clock', CLOCK_HZ, '--rate', rate, '--disable-keyboard-controls']
    # The player would stand still before each lap, and what the first one lacks comes in the next.
    options += ['--loop'] if loop == 'true' else ['--delay', DISCOVERY_S]
    command = ['ros2', 'bag', 'play', bag, *options]
    return [ExecuteProcess(cmd=command, name='player', output='screen')]


def ended(event: ProcessExited, context: LaunchContext) -> list[TimerAction] | None:
    """Of player or node: neither is of use without the other."""
    if context.is_shutdown:
        return None
    if event.returncode:  # the launch ends with what is raised, and with exit code 1
        raise RuntimeError(f'{event.process_name} ended with exit code {event.returncode}')
    return [TimerAction(period=LAST_FRAMES_S, actions=[Shutdown(reason='the bag has ended')])]


def generate_launch_description() -> LaunchDescription:
    depth = IncludeLaunchDescription(PythonLaunchDescriptionSource(str(HERE / 'depth.launch.py')))
    play = RegisterEventHandler(
        OnStateTransition(
            goal_state='active', entities=[OpaqueFunction(function=player)], handle_once=True
        )
    )
    # For the player, which sends the images; whoever has a profile already keeps it.
    profile = [SetEnvironmentVariable(*one) for one in profile_environment().items()]
    end = RegisterEventHandler(OnProcessExit(on_exit=ended))
    check = OpaqueFunction(function=checked)
    return LaunchDescription([*ARGUMENTS, check, *profile, play, end, depth])
