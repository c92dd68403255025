# SPDX-License-Identifier: Apache-2.0
"""What an error says, in one line for a user; the whole of it belongs in the log."""

from __future__ import annotations


def first_line(error: BaseException) -> str:
    """Give the first line of an error's text without its last stop, or the name of its type."""
    return (str(error).strip() or type(error).__name__).split('\n')[0].rstrip('.:')
