"""What slots and images load, and what they say where the extra isn't installed."""

from __future__ import annotations

import subprocess
import sys

import pytest


def python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)


def test_slots_need_no_extra() -> None:
    done = python(
        "import sys\n"
        "for name in ('requests', 'urllib3', 'isal', 'backports', 'backports.zstd'): sys.modules[name] = None\n"
        "import edge_day2.adapters.slots\n"
        "from edge_day2.adapters.images import FolderImageSource, PrefetchFolder, TrustedSources\n"
    )

    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("package", ["requests", "urllib3"])
def test_http_without_the_extra_says_what_to_install(package: str) -> None:
    done = python(f"import sys; sys.modules[{package!r}] = None\nfrom edge_day2.adapters.images import HttpImageSource")

    assert "MissingExtra" in done.stderr
    assert "edge_day2[image]" in done.stderr


def test_a_name_that_is_not_there_is_an_attribute_error() -> None:
    assert "cannot import name 'Nothing'" in python("from edge_day2.adapters.images import Nothing").stderr
