# SPDX-License-Identifier: Apache-2.0
"""Subscriptions and publishers that say why nothing comes through them.

The topics that stay silent are what users of camera nodes lose most time with: a name that nobody
publishes, a type that is another one, a QoS that does not match. DDS tells nobody; these do.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING, Any

from rclpy.lifecycle import LifecycleNode, LifecyclePublisher
from rclpy.qos import (
    DurabilityPolicy,
    HistoryPolicy,
    QoSCompatibility,
    QoSPolicyKind,
    QoSProfile,
    ReliabilityPolicy,
    qos_check_compatible,
    qos_policy_name_from_kind,
)
from rclpy.qos_overriding_options import QoSOverridingOptions

try:
    from rclpy.event_handler import PublisherEventCallbacks, SubscriptionEventCallbacks
except ImportError:  # Humble
    from rclpy.qos_event import (
        PublisherEventCallbacks,
        SubscriptionEventCallbacks,
    )

if TYPE_CHECKING:
    from rclpy.subscription import Subscription
    from rclpy.topic_endpoint_info import TopicEndpointInfo

SILENT_AFTER_S = 5.0  # and after each warning twice as long: a slow camera is not nagged about
_LISTED = 5  # topics named in one message

# A fresh profile for each topic, because an override is written into it.
_qos_in = partial(
    QoSProfile, history=HistoryPolicy.KEEP_LAST, depth=1, reliability=ReliabilityPolicy.BEST_EFFORT
)
_qos_out = partial(
    QoSProfile, history=HistoryPolicy.KEEP_LAST, depth=5, reliability=ReliabilityPolicy.RELIABLE
)
_OVERRIDABLE = QoSOverridingOptions(
    (
        QoSPolicyKind.HISTORY,
        QoSPolicyKind.DEPTH,
        QoSPolicyKind.RELIABILITY,
        QoSPolicyKind.DURABILITY,
    )
)
# What matches any publisher, and any subscriber, of those that can be overridden here.
_MATCHES_ALL = {
    'subscription': {'RELIABILITY': 'best_effort', 'DURABILITY': 'volatile'},
    'publisher': {'RELIABILITY': 'reliable', 'DURABILITY': 'transient_local'},
}


class WatchedSubscription:
    """A subscription whose `check`, called now and then, says why nothing arrives.

    Once for each silence and reason; a publisher that has just come is given time to begin.
    `without` tells what the node cannot do without these
    messages. Of those that `last`, one holds until the next: after it, no silence is too long, and
    one that was latched before this subscription is received as well.
    """

    def __init__(
        self,
        node: LifecycleNode,
        message_type: type,
        topic: str,
        callback: Callable[[Any], None],
        *,
        without: str,
        last: bool = False,
    ) -> None:
        self._node, self._callback, self._without = node, callback, without
        self._last, self._has_come = last, False
        self._has_publisher = False
        self._heard_s = monotonic()
        self._patience_s = SILENT_AFTER_S
        self._said = ''  # why, in this silence
        self._message_type, self._type = message_type, _type_name(message_type)
        self._subscription = self._subscribed(topic, _qos_in(), _OVERRIDABLE)
        self._asked = self._subscription.qos_profile  # with the overrides
        self.follow()

    @property
    def topic(self) -> str:
        """The name after remapping."""
        return self._subscription.topic_name

    def destroy(self) -> None:
        self._node.destroy_subscription(self._subscription)

    def excuse(self) -> None:
        """Count a silence from here on: it was asked for until now."""
        self._heard_s = monotonic()

    def follow(self) -> None:
        """Subscribe to what was latched, where that is what the publishers do."""
        wanted = self._fitting()
        if wanted != self._subscription.qos_profile:
            topic = self.topic
            self.destroy()
            self._subscription = self._subscribed(topic, wanted)

    def check(self) -> None:
        """Warn where nothing has arrived for a while."""
        self.follow()
        if not self._has_publisher and self._node.count_publishers(self.topic):
            self._has_publisher = True
            self._heard_s = monotonic()
        silent_s = monotonic() - self._heard_s
        if silent_s < self._patience_s or (self._last and self._has_come):
            return
        reason = why_silent(
            self.topic,
            self._type,
            self._subscription.qos_profile,
            self._node.get_publishers_info_by_topic(self.topic),
            self._published_by_others(),
        )
        if reason == self._said:
            return
        self._said = reason
        self._patience_s *= 2
        self._node.get_logger().warning(
            f'Nothing has come on {self.topic} for {silent_s:.0f} s, so {self._without}: {reason}'
        )

    def _subscribed(
        self, topic: str, qos: QoSProfile, overridable: QoSOverridingOptions | None = None
    ) -> Subscription:
        return self._node.create_subscription(
            self._message_type,
            topic,
            self._on_message,
            qos,
            qos_overriding_options=overridable,
            event_callbacks=SubscriptionEventCallbacks(incompatible_qos=self._on_incompatible_qos),
        )

    def _fitting(self) -> QoSProfile:
        """Give the QoS that hears all publishers, what they latched before it included.

        A volatile subscription misses that, and one that is not hears no volatile publisher.
        """
        asked = self._asked
        if not self._last or asked.durability == DurabilityPolicy.TRANSIENT_LOCAL:
            return asked
        publishers = self._node.get_publishers_info_by_topic(self.topic)
        offered = [one.qos_profile for one in publishers if one.topic_type == self._type]
        if not offered:  # perhaps it starts again
            return self._subscription.qos_profile
        latched = QoSProfile(
            history=asked.history,
            depth=asked.depth,
            reliability=ReliabilityPolicy.RELIABLE,
            durability=DurabilityPolicy.TRANSIENT_LOCAL,
        )
        return latched if all(_compatible(one, latched) for one in offered) else asked

    def _on_message(self, message: Any) -> None:
        self._heard_s, self._said, self._has_come = monotonic(), '', True
        self._callback(message)

    def _published_by_others(self) -> dict[str, list[str]]:
        """The types of the topics that another node publishes."""
        own = {publisher.topic_name for publisher in self._node.publishers}
        return {
            topic: types
            for topic, types in self._node.get_topic_names_and_types()
            if topic not in own and self._node.count_publishers(topic) > 0
        }

    def _on_incompatible_qos(self, event: Any) -> None:
        ours = self._subscription.qos_profile
        if self._fitting() != ours:  # the next check follows
            return
        others = [
            one
            for one in self._node.get_publishers_info_by_topic(self.topic)
            if not _compatible(one.qos_profile, ours)
        ]
        policy = qos_policy_name_from_kind(event.last_policy_kind)
        self._node.get_logger().warning(mismatch('subscription', self.topic, policy, others))


def watched_publisher(node: LifecycleNode, message_type: type, topic: str) -> LifecyclePublisher:
    """A lifecycle publisher that warns of a subscriber whose QoS it cannot serve."""

    def on_incompatible_qos(event: Any) -> None:
        others = [
            one
            for one in node.get_subscriptions_info_by_topic(publisher.topic_name)
            if not _compatible(publisher.qos_profile, one.qos_profile)
        ]
        policy = qos_policy_name_from_kind(event.last_policy_kind)
        node.get_logger().warning(mismatch('publisher', publisher.topic_name, policy, others))

    publisher = node.create_lifecycle_publisher(
        message_type,
        topic,
        _qos_out(),
        qos_overriding_options=_OVERRIDABLE,
        event_callbacks=PublisherEventCallbacks(incompatible_qos=on_incompatible_qos),
    )
    return publisher


def mismatch(ours: str, topic: str, policy: str, others: Sequence[TopicEndpointInfo]) -> str:
    """Say which policy keeps a topic's two ends apart, and what to set where.

    ours is 'subscription' or 'publisher', policy as in 'RELIABILITY'; others are those on the
    other end that do not match.
    """
    other, verb = (
        ('publisher', 'offers less') if ours == 'subscription' else ('subscriber', 'asks for more')
    )
    names = ', '.join(sorted({_name(one) for one in others})) or 'unknown'
    cure = _MATCHES_ALL[ours].get(policy)
    advice = (
        f'start this node with qos_overrides.{topic}.{ours}.{policy.lower()}:={cure}, or change '
        f'the {other}'
        if cure
        else f'change the {other}'
    )
    return (
        f'QoS mismatch on {topic}: a {other} ({names}) {verb} {policy.lower()} than this node, so '
        f'nothing passes between them: {advice}.'
    )


def namesake(node: LifecycleNode) -> str:
    """Say that another node has this one's full name, '' where none has."""
    own = (node.get_name(), node.get_namespace())
    if node.get_node_names_and_namespaces().count(own) < 2:
        return ''
    return (
        f'Another node is named {node.get_fully_qualified_name()} as well, so that services and '
        'parameters reach either of them and both publish on the same topics: start one with '
        'another name (--ros-args -r __node:=depth_2) or namespace (-r __ns:=/rear). One that '
        'was killed is listed for some seconds more.'
    )


def why_silent(
    topic: str,
    wanted_type: str,
    qos: QoSProfile,
    publishers: Sequence[TopicEndpointInfo],
    topics: dict[str, list[str]],
) -> str:
    """Say what keeps a subscribed topic silent, by what is known of its publishers.

    topics are those that other nodes publish, with their types: what may be meant is named.
    """
    right = [one for one in publishers if one.topic_type == wanted_type]
    matching = [one for one in right if _compatible(one.qos_profile, qos)]
    if matching:
        return (
            f'its publisher ({_names(matching)}) matches but sends nothing, or its messages are '
            'lost on the way: config/fastdds.xml gives Fast DDS room for whole images, in the '
            "sender's process above all (ros2 bag play is one, too)."
        )
    if right:
        _, reason = qos_check_compatible(right[0].qos_profile, qos)
        reason = reason.replace('ERROR: ', '').rstrip('; ').replace(';', '; ').lower()
        return f'the QoS of its publisher ({_names(right)}) does not match ours: {reason}.'
    if publishers:
        types = ', '.join(sorted({one.topic_type for one in publishers}))
        return (
            f'its publisher ({_names(publishers)}) sends {types}, and this node expects '
            f'{wanted_type}: choose another topic or image_transport.'
        )
    others = sorted(name for name, types in topics.items() if wanted_type in types)
    meant = [name for name in others if name != topic][:_LISTED]
    compressed = f'{topic}/compressed'
    if 'sensor_msgs/msg/CompressedImage' in topics.get(compressed, ()):
        hint = f'there is {compressed}: set image_transport to compressed'
    elif topic.endswith('/compressed') and topic.removesuffix('/compressed') in others:
        hint = f'there is {topic.removesuffix("/compressed")}: set image_transport to raw'
    elif meant:
        hint = f'remap it to the one that is meant, of this type there is {", ".join(meant)}'
    else:
        hint = 'no topic of this type is seen, so look at the camera and at ROS_DOMAIN_ID'
    return f'it has no publisher; {hint}.'


def _compatible(publisher: QoSProfile, subscription: QoSProfile) -> bool:
    return qos_check_compatible(publisher, subscription)[0] != QoSCompatibility.ERROR


def _names(endpoints: Sequence[TopicEndpointInfo]) -> str:
    return ', '.join(sorted({_name(one) for one in endpoints}))


def _name(endpoint: TopicEndpointInfo) -> str:
    return f'{endpoint.node_namespace.rstrip("/")}/{endpoint.node_name}'


def _type_name(message_type: type) -> str:
    """As in sensor_msgs/msg/Image."""
    package, kind = message_type.__module__.split('.')[:2]
    return f'{package}/{kind}/{message_type.__name__}'
