# SPDX-License-Identifier: Apache-2.0
"""A camera without hardware and the depth node: ros2 launch smoothdino_ros demo.launch.py

Ends when one of them does, with exit code 1 where it failed. Takes the arguments of
depth.launch.py as well.
"""

from pathlib import Path, PurePosixPath

from launch import LaunchContext, LaunchDescription
from launch.actions import (
    DeclareLaunchArgument,
    IncludeLaunchDescription,
    OpaqueFunction,
    RegisterEventHandler,
    SetEnvironmentVariable,
    Shutdown,
)
from launch.event_handlers import OnProcessExit
from launch.events.process import ProcessExited
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node

from smoothdino_ros.fast_dds import profile_environment
from smoothdino_ros.launch_arguments import positive

HERE = Path(__file__).resolve().parent
ARGUMENTS = (
    DeclareLaunchArgument(
        'input',
        default_value='',
        description='A folder of images, a video or a bag; empty plays a made-up room.',
    ),
    DeclareLaunchArgument(
        'image',
        default_value='/camera/image',
        description='Topic of the images, from the camera to the node; camera_info is beside it.',
    ),
    DeclareLaunchArgument(
        'rate_hz', default_value='5.0', description='Frames per second of the camera.'
    ),
    DeclareLaunchArgument(
        'model',
        default_value='smoothdino-small',
        description='A Hugging Face id, a directory, or smoothdino-small (bundled).',
    ),
    DeclareLaunchArgument(
        'device', default_value='', description='auto, cpu, cuda, cuda:<index> or mps.'
    ),
)


def sample_camera(context: LaunchContext) -> list[Node]:
    played, image, rate_hz = (
        LaunchConfiguration(name).perform(context) for name in ('input', 'image', 'rate_hz')
    )
    values = {'rate_hz': positive('rate_hz', rate_hz)}
    return [
        Node(
            package='smoothdino_ros',
            executable='sample_camera',
            name='sample_camera',
            namespace='camera',
            parameters=[values | ({'input': played} if played else {})],
            remappings=[
                ('image', image),
                ('camera_info', str(PurePosixPath(image).with_name('camera_info'))),
            ],
            output='screen',
        )
    ]


def ended(event: ProcessExited, context: LaunchContext) -> Shutdown | None:
    if context.is_shutdown:
        return None
    if event.returncode:  # the launch ends with what is raised, and with exit code 1
        raise RuntimeError(f'{event.process_name} ended with exit code {event.returncode}')
    return Shutdown(reason=f'{event.process_name} has ended')


def generate_launch_description() -> LaunchDescription:
    depth = IncludeLaunchDescription(PythonLaunchDescriptionSource(str(HERE / 'depth.launch.py')))
    # For the camera, which sends the images; whoever has a profile already keeps it.
    profile = [SetEnvironmentVariable(*one) for one in profile_environment().items()]
    camera = OpaqueFunction(function=sample_camera)
    end = RegisterEventHandler(OnProcessExit(on_exit=ended))
    return LaunchDescription([*ARGUMENTS, *profile, end, camera, depth])
