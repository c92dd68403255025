# SPDX-License-Identifier: Apache-2.0
"""What the model's side logs, in the node's log."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from rclpy.logging import LoggingSeverity

from smoothdino_ros import diagnostics

if TYPE_CHECKING:
    from rclpy.impl.rcutils_logger import RcutilsLogger


class ToRosLog(logging.Handler):
    """What the model's side logs, such as a download, in the node's log."""

    def __init__(self, logger: RcutilsLogger) -> None:
        super().__init__(logging.DEBUG)
        self._logger = logger

    def emit(self, record: logging.LogRecord) -> None:
        debug = record.levelno < logging.INFO
        if debug and not self._logger.is_enabled_for(LoggingSeverity.DEBUG):
            return  # a traceback costs time and memory, which may be what is lacking
        text = diagnostics.without_home(self.format(record))  # with the traceback, if any
        if record.levelno >= logging.WARNING:  # rclpy wants one line of code for one severity
            self._logger.warning(text)
        elif debug:
            self._logger.debug(text)
        else:
            self._logger.info(text)
