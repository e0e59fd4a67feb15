"""Images: where they come from, and how they get into a slot. HTTP and Zstandard need `edge_day2[image]`.

Names are loaded when they are first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from edge_day2.lazy_names import load

if TYPE_CHECKING:
    from edge_day2.adapters.images.block_devices import BlockDevices
    from edge_day2.adapters.images.disk_image import PartitionChoice
    from edge_day2.adapters.images.download import RetryLimits
    from edge_day2.adapters.images.file_source import FolderImageSource
    from edge_day2.adapters.images.http_source import HttpImageSource, HttpLimits
    from edge_day2.adapters.images.pipeline import ImageLimits
    from edge_day2.adapters.images.prefetch import PrefetchFolder
    from edge_day2.adapters.images.running_system import RunningSystem
    from edge_day2.adapters.images.trusted_sources import TrustedSource, TrustedSources
    from edge_day2.adapters.images.watch import Phase, Progress

_HOMES: Final = {
    "BlockDevices": "block_devices",
    "FolderImageSource": "file_source",
    "HttpImageSource": "http_source",
    "HttpLimits": "http_source",
    "ImageLimits": "pipeline",
    "PartitionChoice": "disk_image",
    "Phase": "watch",
    "PrefetchFolder": "prefetch",
    "Progress": "watch",
    "RetryLimits": "download",
    "RunningSystem": "running_system",
    "TrustedSource": "trusted_sources",
    "TrustedSources": "trusted_sources",
}
_PACKAGES: Final = {"requests": "requests", "urllib3": "urllib3"}

__all__ = [
    "BlockDevices",
    "FolderImageSource",
    "HttpImageSource",
    "HttpLimits",
    "ImageLimits",
    "PartitionChoice",
    "Phase",
    "PrefetchFolder",
    "Progress",
    "RetryLimits",
    "RunningSystem",
    "TrustedSource",
    "TrustedSources",
]


def __getattr__(name: str) -> object:
    return load(globals(), _HOMES, name, extra="image", packages=_PACKAGES)
