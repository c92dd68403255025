# SPDX-License-Identifier: Apache-2.0
"""The node's parameters as rclpy has them: with type and range, and what was set that is none.

rclpy raises while *declaring* on an override of another type or out of range (`max_depth_m:=10`,
an integer, is enough). So an integer is taken for a number here, and an override that is wrong is
kept as it came, open to any value, until it is put right: `on_configure` says so in one sentence.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from dataclasses import Field
from typing import Any

from rcl_interfaces.msg import (
    FloatingPointRange,
    IntegerRange,
    ParameterDescriptor,
    SetParametersResult,
)
from rclpy.node import Node
from rclpy.parameter import Parameter

from smoothdino_ros.parameter_field import checked
from smoothdino_ros.parameters import FIELDS, NodeParameters, from_values

_QOS = 'qos_overrides.'  # how the names of the parameters for a topic's QoS begin
_TYPES = {
    bool: Parameter.Type.BOOL,
    int: Parameter.Type.INTEGER,
    float: Parameter.Type.DOUBLE,
    str: Parameter.Type.STRING,
    tuple: Parameter.Type.STRING_ARRAY,
}


def declare(node: Node) -> None:
    """Declare every parameter, at the value that the node was started with."""
    overrides = _overrides(node)
    for name, f in FIELDS.items():
        value = overrides.get(name, f.default)
        try:
            right = _parameter(f, value)
        except ValueError:
            kept = ParameterDescriptor(description=f.metadata['description'], dynamic_typing=True)
            node.declare_parameter(name, value, kept, ignore_override=True)
            continue
        # By its type, and then set: of an empty list rclpy would not know what it is a list of.
        node.declare_parameter(name, right.type_, _descriptor(f), ignore_override=True)
        node.set_parameters([right])


def read(node: Node) -> NodeParameters:
    """The present values, checked; raises ValueError, one sentence."""
    return from_values({name: node.get_parameter(name).value for name in FIELDS})


def set_typed(
    node: Node,
    new: Sequence[Parameter],
    set_atomically: Callable[[list[Parameter]], SetParametersResult],
) -> SetParametersResult:
    """Set parameters as rclpy's set_atomically does, with those of ours in their own type.

    What has another type or is out of range is refused in a sentence.
    """
    try:
        typed = [
            _parameter(FIELDS[one.name], one.value) if one.name in FIELDS else one for one in new
        ]
    except ValueError as error:
        return SetParametersResult(successful=False, reason=str(error))
    result = set_atomically(typed)
    for one in typed if result.successful else ():
        # What was wrong from the start has been put right: type and range hold from now on.
        if one.name in FIELDS and node.describe_parameter(one.name).dynamic_typing:
            node.set_descriptor(one.name, _descriptor(FIELDS[one.name]))
    return result


def without_effect(node: Node, *, qos: bool) -> str:
    """Say which settings from outside are of no parameter, and what may be meant; '' for none.

    Those for the QoS of topics (qos) are known when the topics have been made.
    """
    known = node.list_parameters([], 0).names
    unknown = [
        name for name in _overrides(node) if name not in known and name.startswith(_QOS) == qos
    ]
    near = {name: difflib.get_close_matches(name, known, 1) for name in unknown}
    named = [f'{name} (is {near[name][0]} meant?)' if near[name] else name for name in unknown]
    return f'Not a parameter of this node, so without effect: {", ".join(named)}.' if named else ''


def _overrides(node: Node) -> dict[str, Any]:
    """What the node was started with, by name; rclpy tells of it nowhere else."""
    return {name: one.value for name, one in node._parameter_overrides.items()}


def _parameter(f: Field[Any], value: object) -> Parameter:
    right = checked(f, value)
    value = list(right) if isinstance(right, tuple) else right
    return Parameter(f.name, _TYPES[type(f.default)], value)


def _descriptor(f: Field[Any]) -> ParameterDescriptor:
    descriptor = ParameterDescriptor(
        description=f.metadata['description'], type=_TYPES[type(f.default)].value
    )
    if f.metadata['within']:
        least, most = f.metadata['within']
        if isinstance(f.default, float):
            descriptor.floating_point_range = [FloatingPointRange(from_value=least, to_value=most)]
        else:
            descriptor.integer_range = [IntegerRange(from_value=least, to_value=most, step=1)]
    return descriptor
