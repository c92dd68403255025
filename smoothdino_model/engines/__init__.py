# SPDX-License-Identifier: Apache-2.0
"""What runs a network: on which device, in which precision, by which library."""
