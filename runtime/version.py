"""The version of this service: of its package, its images and its API document."""

from typing import Final

VERSION: Final = "1.0.0"
