"""Which settings are refused, and where dpkg gets a scope of its own."""

from __future__ import annotations

import os
from datetime import timedelta
from pathlib import Path

import pytest

from edge_day2.adapters.apt_settings import AptSettings, systemd_scope
from edge_day2.errors import InvalidValue


def test_limits_below_zero_are_refused() -> None:
    with pytest.raises(InvalidValue, match="free_space_margin: found -1"):
        AptSettings(free_space_margin=-1)
    with pytest.raises(InvalidValue, match="lock_wait"):
        AptSettings(lock_wait=timedelta(seconds=-1))
    with pytest.raises(InvalidValue, match="repair_tries: found 0"):
        AptSettings(repair_tries=0)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, as systemd-run does")
def test_what_runs_dpkg_gets_a_scope_of_its_own_where_systemd_runs(tmp_path: Path) -> None:
    assert systemd_scope(tmp_path)[:2] == ("systemd-run", "--scope")


def test_without_systemd_nothing_stands_before_a_command(tmp_path: Path) -> None:
    assert systemd_scope(tmp_path / "no") == ()
