# SPDX-License-Identifier: Apache-2.0
"""A monotonic clock that stands still until a test moves it on."""


class Clock:
    def __init__(self, now_s: float = 1000.0) -> None:
        self.now_s = now_s

    def monotonic(self) -> float:
        return self.now_s

    def advance(self, seconds: float) -> None:
        self.now_s += seconds
