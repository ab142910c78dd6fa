"""Encode pictures as image files and animations, and write files atomically."""

from actgrid.encoding.animation import Animation, check_animation
from actgrid.encoding.files import (
    is_partial_file,
    lock_folder,
    make_folder,
    open_atomic_file,
    sync_file_system,
    write_file,
)
from actgrid.encoding.frames import encode_frames
from actgrid.encoding.images import encode, find_image_format
from actgrid.encoding.png import (
    check_picture_size,
    encode_png,
    make_blank_levels,
)

__all__ = [
    "Animation",
    "check_animation",
    "check_picture_size",
    "encode",
    "encode_frames",
    "encode_png",
    "find_image_format",
    "is_partial_file",
    "lock_folder",
    "make_blank_levels",
    "make_folder",
    "open_atomic_file",
    "sync_file_system",
    "write_file",
]
