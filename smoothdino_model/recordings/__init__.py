# SPDX-License-Identifier: Apache-2.0
"""Folders, videos and rosbags as frames: pictures, stamps, cameras, depth."""
