# SPDX-License-Identifier: Apache-2.0
"""Why a topic is silent, in words that name the topic, the other end and the cure."""

import pytest

pytest.importorskip('rclpy', reason='needs ROS 2 (rclpy)')

from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rclpy.topic_endpoint_info import TopicEndpointInfo

from smoothdino_ros.topics import mismatch, why_silent

IMAGE, COMPRESSED = 'sensor_msgs/msg/Image', 'sensor_msgs/msg/CompressedImage'
RELIABLE = QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE)
BEST_EFFORT = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
LATCHED = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)


def publisher(topic_type: str = IMAGE, qos: QoSProfile = RELIABLE) -> TopicEndpointInfo:
    return TopicEndpointInfo(
        node_name='camera', node_namespace='/front', topic_type=topic_type, qos_profile=qos
    )


def why(publishers=(), topics=None, qos=BEST_EFFORT, topic='/a/image') -> str:
    return why_silent(topic, IMAGE, qos, publishers, topics or {})


@pytest.mark.parametrize(
    ('reason', 'words'),
    [
        (why(), ['no publisher', 'ROS_DOMAIN_ID']),
        (
            why(topics={'/cam/image': [IMAGE], '/tf': ['x']}),
            ['no publisher', 'remap', '/cam/image'],
        ),
        (
            why(topics={'/a/image': [IMAGE], '/a/image/compressed': [COMPRESSED]}),
            ['image_transport to compressed'],
        ),
        (why([publisher(COMPRESSED)]), ['/front/camera', COMPRESSED, f'expects {IMAGE}']),
        (
            why([publisher(qos=BEST_EFFORT)], qos=RELIABLE),
            ['/front/camera', 'does not match', 'best effort publisher and reliable subscription'],
        ),
        (why([publisher()]), ['/front/camera', 'sends nothing', 'fastdds.xml', 'in the sender']),
        # One that matches is what counts, whatever else is there.
        (why([publisher(COMPRESSED), publisher()]), ['sends nothing']),
    ],
)
def test_silence_has_a_reason(reason, words):
    for word in words:
        assert word in reason
    assert reason.endswith('.')
    assert '\n' not in reason


def test_the_compressed_name_leads_back_to_the_raw_one():
    topics = {'/a/image': [COMPRESSED]}
    reason = why_silent('/a/image/compressed', COMPRESSED, BEST_EFFORT, [], topics)
    assert 'image_transport to raw' in reason


def test_many_topics_are_not_all_listed():
    topics = {f'/camera_{i}/image': [IMAGE] for i in range(100)}
    assert len(why(topics=topics)) < 300


def test_a_mismatch_names_the_policy_the_other_end_and_the_cure():
    text = mismatch('subscription', '/a/image', 'RELIABILITY', [publisher(qos=BEST_EFFORT)])
    assert '/front/camera' in text
    assert 'qos_overrides./a/image.subscription.reliability:=best_effort' in text
    text = mismatch('publisher', '/depth/image', 'DURABILITY', [publisher(qos=LATCHED)])
    assert 'qos_overrides./depth/image.publisher.durability:=transient_local' in text
    text = mismatch('publisher', '/depth/image', 'DEADLINE', [])
    assert 'deadline' in text
    assert 'qos_overrides' not in text
    assert text.endswith('change the subscriber.')
