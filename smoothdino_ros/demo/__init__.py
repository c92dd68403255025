# SPDX-License-Identifier: Apache-2.0
"""The demo: a camera, the depth node and a viewer in a network of their own."""
