# SPDX-License-Identifier: Apache-2.0
"""Where training windows come from."""
