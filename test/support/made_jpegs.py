# SPDX-License-Identifier: Apache-2.0
"""JPEGs as cameras send them, written for the tests."""


def with_orientation(jpeg: bytes, orientation: int) -> bytes:
    """A JPEG with the EXIF that says how it is to be turned, 1 to 8."""
    exif = b'Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0'
    exif += bytes([orientation, 0, 0, 0, 0, 0, 0, 0])
    return jpeg[:2] + b'\xff\xe1' + (len(exif) + 2).to_bytes(2, 'big') + exif + jpeg[2:]
