# SPDX-License-Identifier: Apache-2.0
"""Waiting until two processes have discovered each other, which DDS tells neither of them."""

import time

import rclpy
from lifecycle_msgs.srv import GetState


def ask(node, kind, name: str, request, *, timeout_s: float = 180.0):
    """The answer to a query that changes nothing; asked again where it, or its answer, is lost.

    A server that has not discovered the reader of a client yet has nobody to answer.
    """
    client = node.create_client(kind, name)
    try:
        assert client.wait_for_service(timeout_s), name
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            future = client.call_async(request)
            rclpy.spin_until_future_complete(node, future, timeout_sec=1.0)
            if future.done():
                return future.result()
        raise TimeoutError(name)
    finally:
        node.destroy_client(client)


def wait_until_known(node, other: str = 'depth') -> None:
    """Wait until the process of a lifecycle node has discovered all that this process has made.

    It learns of readers and of writers in the order of their making, and a client is one of each:
    what was made before one that is answered is known.
    """
    ask(node, GetState, f'{other}/get_state', GetState.Request())
