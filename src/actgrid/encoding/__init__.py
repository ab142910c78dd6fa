"""Levels and a palette to files. Knows arrays and bytes, no grid."""

from actgrid.encoding.animation import Animation, check_animation
from actgrid.encoding.files import (
    is_leftover,
    lock_folder,
    sync_file_system,
    writable_folder,
    write_file,
    writing_file,
)
from actgrid.encoding.images import encode, image_format
from actgrid.encoding.png import (
    blank_levels,
    check_picture_size,
    encode_png,
)

__all__ = [
    "Animation",
    "blank_levels",
    "check_animation",
    "check_picture_size",
    "encode",
    "encode_png",
    "image_format",
    "is_leftover",
    "lock_folder",
    "sync_file_system",
    "writable_folder",
    "write_file",
    "writing_file",
]
