"""The examples of a node's agent: their settings, and the units that run them."""

from __future__ import annotations

import importlib
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import get_args

import attrs
import pytest
from attrs import frozen

from edge_day2.domain.resources import OSType

EXAMPLES = Path(__file__).parents[2] / "examples"
SETTINGS = EXAMPLES / "immutable_node.toml"
UNITS = sorted((EXAMPLES / "systemd").glob("*.service"))
# systemd.exec(5): 0 is perfect, 10 is a service that nothing holds back. What a node's agent can't do without is 2.6.
MOST_EXPOSED = 3.0

needs_systemd = pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze isn't installed")


@frozen
class Said:
    """The exit status of an agent's command, and what it said."""

    status: int
    output: str
    error: str


@pytest.fixture
def ask(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Said]:
    """Return a function that runs the example in this process."""
    monkeypatch.syspath_prepend(EXAMPLES)
    example = importlib.import_module("immutable_node")
    command = importlib.import_module("node_command")

    def run(config: Path, *options: str) -> Said:
        monkeypatch.setattr(sys, "argv", ["immutable_node.py", "--config", str(config), *options])
        status = command.main(example.ImmutableNodeSettings, OSType.IMMUTABLE, example.make_node, "")
        said = capsys.readouterr()
        return Said(status, said.out, said.err)

    return run


def test_the_settings_of_the_example_are_good() -> None:
    command = [sys.executable, str(EXAMPLES / "immutable_node.py"), "--config", str(SETTINGS), "--check-config"]
    done = subprocess.run(command, capture_output=True, text=True)

    assert (done.returncode, done.stdout, done.stderr) == (0, f"{SETTINGS}: good\n", "")


def test_what_the_example_shows_in_comments_are_settings_and_their_defaults(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(EXAMPLES)
    kind = importlib.import_module("immutable_node").ImmutableNodeSettings
    read_settings = importlib.import_module("node_settings").read_settings
    shown = re.sub(r"^# (\[\[?[a-z.]+\]\]?|[a-z_]+ = .*)$", r"\1", SETTINGS.read_text(), flags=re.MULTILINE)
    assert shown.count("\n# ") < SETTINGS.read_text().count("\n# ") - 20
    (tmp_path / "node.toml").write_text(shown)

    explicit, left_out = read_settings(tmp_path / "node.toml", kind), read_settings(SETTINGS, kind)

    for table in ("agent", "policy", "machine"):
        assert getattr(explicit, table) == getattr(left_out, table)
    optional = {"options", "ca"}
    for table in ("boot", "images"):
        as_shown, by_default = (attrs.asdict(getattr(one, table), recurse=False) for one in (explicit, left_out))
        assert {name for name in as_shown if as_shown[name] != by_default[name]} <= optional


def test_the_example_shows_every_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(EXAMPLES)
    shown, missing = SETTINGS.read_text(), []

    def look(kind: type, place: str) -> None:
        for one in attrs.fields(attrs.resolve_types(kind)):
            inner = next((part for part in (one.type, *get_args(one.type)) if attrs.has(part)), None)
            if inner is not None:
                look(inner, f"{place}{one.name}.")
            elif re.search(rf"^(# )?{one.name} = ", shown, re.MULTILINE) is None:
                missing.append(f"{place}{one.name}")

    look(importlib.import_module("immutable_node").ImmutableNodeSettings, "")

    assert missing == []


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        ("[agent]", "[agent]\njurnal = ''", "unknown jurnal, expected one of journal, lock, .* at agent"),
        ("[agent]", "[agnet]", "unknown agnet, expected one of maintenance_manager, host_guid, .*, boot$"),
        ("minutes_to_update = 20", "minutes_to_update = '20'", "found '20', expected int at policy.minutes_to_update"),
        ("default_route = true", "default_route = 1", "found 1, expected bool at health.default_route"),
        ("[health]", "[health]\nprobes = [{}]", r"required field missing at health.probes\[0\].url"),
        ('units = ["systemd-networkd.service"]', "units = 'x'", "found 'x', expected list at health.units"),
        ("[policy]", "[policy]\nwindow_close = 'stop'", "found 'stop', expected pause or fail"),
        ("[slots.b]", "[slots.c]", "(?s)required field missing at slots.b.*unknown c, expected one of a, b at slots"),
        ("tries = 2", "tries = 0", "tries: found 0, expected a number from 1"),
        ('"https://files.example.org/images"\ntoken', '"ftp://files"\ntoken', "url: found 'ftp://files'"),
        ("[agent]", "[agent]\nlog_level = 'loud'", "found 'loud', expected debug or info or warning or error"),
        ("[policy]", "[policy]\nkernel_command_line = '['", "policy.kernel_command_line: unterminated character set"),
        ("[agent]", "[agent", "Expected"),
        (
            "minutes_to_reboot = 5",
            "minutes_to_reboot = -5",
            "AgentPolicy.time_to_reboot: found .*, expected nothing below",
        ),
        ("[policy]", "[policy]\ntrial_boots = 0", "AgentPolicy.trial_boots: found 0, expected a number from 1"),
        ("[policy]", "[policy]\nretries = -1", "AgentPolicy.retries: found -1, expected nothing below zero"),
        ("[agent]", "[agent]\ninterval_seconds = 0", "ServiceTimes.interval: found 0.0, expected seconds above zero"),
        (
            "[agent]",
            "[agent]\nfirst_retry_seconds = inf",
            "ServiceTimes.first_retry: found inf, expected seconds from 0",
        ),
        ("[health]", "[health]\ndeadline_seconds = nan", "deadline_seconds: found nan, expected seconds from 0"),
        ("[health]", "[health]\ncommands = [[]]", "command: found .*, expected a program and its arguments"),
        ('address = "maintenance.example.org:443"', "address = ''", "target: found '', expected host and port"),
        ("[maintenance_manager]", "host_guid = '12345'\n[maintenance_manager]", "host_guid: found '12345'"),
        ("[boot]", "[machine]\nreboot_command = []\n[boot]", "reboot_command: found .*, expected a program"),
    ],
)
def test_a_wrong_setting_is_named_with_what_was_expected(
    tmp_path: Path, ask: Callable[..., Said], before: str, after: str, said: str
) -> None:
    text = SETTINGS.read_text()
    assert before in text
    (tmp_path / "node.toml").write_text(text.replace(before, after))

    done = ask(tmp_path / "node.toml", "--check-config")

    assert (done.status, done.output) == (78, "")
    assert re.search(said, done.error.strip()), done.error


def test_a_missing_file_is_named(tmp_path: Path, ask: Callable[..., Said]) -> None:
    done = ask(tmp_path / "no.toml", "--check-config")

    assert (done.status, done.output) == (78, "")
    assert "No such file or directory" in done.error


def test_a_node_without_a_uuid_does_not_start(tmp_path: Path, ask: Callable[..., Said]) -> None:
    (tmp_path / "uuid").write_text("Not Settable\n")
    config = tmp_path / "node.toml"
    for host_guid, said in (
        (f"host_guid_file = '{tmp_path}/uuid'\n", "host_guid: found 'Not Settable', expected a UUID"),
        (f"host_guid_file = '{tmp_path}/none'\n", "host_guid isn't set, and host_guid_file can't be read"),
        ("host_guid = '12345'\n", "host_guid: found '12345'"),
    ):
        config.write_text(host_guid + SETTINGS.read_text())

        done = ask(config)

        assert (done.status, done.output) == (78, "")
        assert said in done.error


@needs_systemd
@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: str(unit.name))
def test_systemd_reads_the_unit_without_a_complaint(tmp_path: Path, unit: Path) -> None:
    # The one thing that isn't on this machine is the agent's own place.
    here = tmp_path / unit.name
    here.write_text(re.sub(r"^ExecStart=\S+", f"ExecStart={sys.executable}", unit.read_text(), flags=re.MULTILINE))

    done = subprocess.run(["systemd-analyze", "verify", here], capture_output=True, text=True)

    assert (done.returncode, done.stderr) == (0, "")


@needs_systemd
def test_the_unit_of_an_immutable_node_is_held_back() -> None:
    unit = EXAMPLES / "systemd" / "edge-day2-immutable.service"
    done = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--no-pager", unit], capture_output=True, text=True
    )

    found = re.search(r"Overall exposure level .*: ([0-9.]+)", done.stdout)
    assert found is not None, done.stderr
    assert float(found[1]) <= MOST_EXPOSED
