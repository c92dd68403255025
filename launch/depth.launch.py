# SPDX-License-Identifier: Apache-2.0
"""The depth node: ros2 launch smoothdino_ros depth.launch.py image:=/camera/image_raw

An argument left empty leaves the value to params_file, and without one to the node.
"""

from pathlib import PurePosixPath

from launch import LaunchContext, LaunchDescription
from launch.actions import DeclareLaunchArgument, OpaqueFunction
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import LifecycleNode

from smoothdino_ros.fast_dds import profile_environment
from smoothdino_ros.launch_arguments import full_name, params_file_for

TRUE_OR_FALSE = ['', 'true', 'false']
ARGUMENTS = (
    DeclareLaunchArgument(
        'image',
        default_value='image',
        description='Topic of the image (sensor_msgs/Image); with image_transport: compressed in '
        'params_file, the topic to which /compressed is appended.',
    ),
    DeclareLaunchArgument(
        'camera_info',
        default_value='',
        description='Topic of the camera_info; empty takes the one beside the image '
        '(/camera/image_raw: /camera/camera_info).',
    ),
    DeclareLaunchArgument(
        'model',
        default_value='',
        description='A Hugging Face id, a directory, or smoothdino-small (bundled).',
    ),
    DeclareLaunchArgument(
        'adapter',
        default_value='',
        description='Temporal adapter: a directory, a file, a published .pth, or none; '
        'empty takes the one that lies with the model.',
    ),
    DeclareLaunchArgument(
        'engine',
        default_value='',
        description='auto, torch, openvino, onnxruntime or onnxruntime:tensorrt.',
    ),
    DeclareLaunchArgument(
        'device',
        default_value='',
        description='auto (cuda where there is one, else cpu), cpu, cuda, cuda:<index> or mps.',
    ),
    DeclareLaunchArgument(
        'params_file',
        default_value='',
        description='A YAML file of parameters such as config/depth.yaml.',
    ),
    DeclareLaunchArgument(
        'namespace', default_value='', description='Namespace of the node and its topics.'
    ),
    DeclareLaunchArgument(
        'use_sim_time',
        default_value='',
        choices=TRUE_OR_FALSE,
        description='Whether the node takes its time from /clock.',
    ),
    DeclareLaunchArgument(
        'log_level',
        default_value='info',
        choices=['debug', 'info', 'warn', 'error', 'fatal'],
        description="Least severity of the node's log.",
    ),
    DeclareLaunchArgument(
        'autostart',
        default_value='',
        choices=TRUE_OR_FALSE,
        description='Whether the node configures and activates itself.',
    ),
)


def depth_node(context: LaunchContext) -> list[LifecycleNode]:
    given = {one.name: LaunchConfiguration(one.name).perform(context) for one in ARGUMENTS}
    image = given['image']
    info = given['camera_info'] or str(PurePosixPath(image).with_name('camera_info'))
    values: dict[str, str | bool] = {
        name: given[name] for name in ('model', 'adapter', 'engine', 'device') if given[name]
    }
    for name in ('use_sim_time', 'autostart'):
        if given[name]:
            values[name] = given[name] == 'true'
    parameters: list[str | dict] = [values]
    if given['params_file']:
        node = full_name(given['namespace'], 'depth')
        parameters.insert(0, params_file_for(node, given['params_file']))
    return [
        LifecycleNode(  # so that other launch files can wait for its states
            package='smoothdino_ros',
            executable='depth_node',
            name='depth',
            namespace=given['namespace'],
            parameters=parameters,
            remappings=[
                ('image', image),
                ('image/compressed', f'{image}/compressed'),
                ('camera_info', info),
            ],
            ros_arguments=['--log-level', given['log_level']],
            # Whole images over Fast DDS, see the file; whoever has a profile already keeps it.
            additional_env=profile_environment(),
            sigterm_timeout='20',  # it ends after the frame at work, which takes a CPU seconds
            output='screen',
        )
    ]


def generate_launch_description() -> LaunchDescription:
    return LaunchDescription([*ARGUMENTS, OpaqueFunction(function=depth_node)])
