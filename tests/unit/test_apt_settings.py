"""Where dpkg gets a scope of its own."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from edge_day2.adapters.apt_settings import systemd_scope


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, as systemd-run does")
def test_what_runs_dpkg_gets_a_scope_of_its_own_where_systemd_runs(tmp_path: Path) -> None:
    assert systemd_scope(tmp_path)[:2] == ("systemd-run", "--scope")


def test_without_systemd_nothing_stands_before_a_command(tmp_path: Path) -> None:
    assert systemd_scope(tmp_path / "no") == ()
