# SPDX-License-Identifier: Apache-2.0
"""What lies on disk or on a hub, and the networks made of it."""
