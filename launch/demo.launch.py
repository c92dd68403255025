# SPDX-License-Identifier: Apache-2.0
"""A camera without hardware and the depth node: ros2 launch smoothdino_ros demo.launch.py"""

from pathlib import Path

from launch import LaunchContext, LaunchDescription
from launch.actions import (
    DeclareLaunchArgument,
    IncludeLaunchDescription,
    OpaqueFunction,
    SetEnvironmentVariable,
)
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node

from smoothdino_ros.fast_dds import profile_environment

HERE = Path(__file__).resolve().parent
ARGUMENTS = (
    DeclareLaunchArgument(
        'input',
        default_value='',
        description='A folder of images, a video or a bag; empty plays a made-up room.',
    ),
    DeclareLaunchArgument(
        'rate_hz', default_value='5.0', description='Frames per second of the camera.'
    ),
    DeclareLaunchArgument(
        'model',
        default_value='sample-room',
        description='A Hugging Face id, a directory, or sample-room (bundled).',
    ),
    DeclareLaunchArgument(
        'device', default_value='', description='auto, cpu, cuda, cuda:<index> or mps.'
    ),
)


def sample_camera(context: LaunchContext) -> list[Node]:
    values = {'rate_hz': float(LaunchConfiguration('rate_hz').perform(context))}
    played = LaunchConfiguration('input').perform(context)
    return [
        Node(
            package='smoothdino_ros',
            executable='sample_camera',
            name='sample_camera',
            namespace='camera',
            parameters=[values | ({'input': played} if played else {})],
            output='screen',
        )
    ]


def generate_launch_description() -> LaunchDescription:
    depth = IncludeLaunchDescription(
        PythonLaunchDescriptionSource(str(HERE / 'depth.launch.py')),
        launch_arguments={
            'image': '/camera/image',
            'model': LaunchConfiguration('model'),
            'device': LaunchConfiguration('device'),
        }.items(),
    )
    # For the camera, which sends the images; whoever has a profile already keeps it.
    profile = [SetEnvironmentVariable(*one) for one in profile_environment().items()]
    camera = OpaqueFunction(function=sample_camera)
    return LaunchDescription([*ARGUMENTS, *profile, camera, depth])
