"""Kernel command lines of entries, and which slot a running one means."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_day2.adapters.bootloader.kernel_parameters import compose, key, split
from edge_day2.adapters.bootloader.slot_roots import SlotRoots
from edge_day2.domain.observation import Slot
from edge_day2.errors import InvalidValue
from edge_day2.ports.failures import NodeFailure

ROOT = "root=PARTUUID=1"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", ()),
        ("  quiet   ro ", ("quiet", "ro")),
        ('foo="a b" "bar=c d" x', ('foo="a b"', '"bar=c d"', "x")),
        ('a"b c"d', ('a"b c"d',)),
    ],
)
def test_parameters_are_split_as_the_kernel_does(text: str, words: tuple[str, ...]) -> None:
    assert split(text) == words


@given(text=st.text(max_size=40))
def test_a_text_is_split_without_loss_or_refused(text: str) -> None:
    try:
        words = split(text)
    except NodeFailure as failure:
        refused = failure
        words = ()
    else:
        assert " ".join(words).split() == text.split()
        return
    assert refused.conclusive
    assert not text.isascii() or not text.isprintable() or text.count('"') % 2


@given(
    wanted=st.lists(st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=12), max_size=5)
)
def test_nothing_that_is_wanted_can_choose_another_root(wanted: list[str]) -> None:
    try:
        text = compose(root=ROOT, own=(), base="ro", wanted=" ".join(wanted), panic_seconds=10)
    except NodeFailure as failure:
        assert failure.conclusive  # noqa: PT017 both outcomes are allowed
        return
    words = split(text)
    assert words[0] == ROOT
    assert [word for word in words if key(word) == "root"] == [ROOT]
    assert "--" not in words


def test_dashes_and_underscores_are_the_same_to_the_kernel() -> None:
    with pytest.raises(NodeFailure, match="chooses the root"):
        compose(root="root=/dev/mapper/r boot_uuid=1", own=(), base="", wanted="boot-uuid=2", panic_seconds=None)


class TestSlotRoots:
    def roots(self, tmp_path: Path, found: str, **slots: str) -> SlotRoots:
        path = tmp_path / "cmdline"
        path.write_text(found + "\n")
        given = {Slot.A: slots.get("a", "root=PARTUUID=AAAA"), Slot.B: slots.get("b", "root=PARTUUID=BBBB")}
        return SlotRoots(given, command_line=path, devices=tmp_path / "dev")

    def test_the_slot_whose_root_was_given_to_the_kernel_runs(self, tmp_path: Path) -> None:
        assert self.roots(tmp_path, "quiet root=PARTUUID=bbbb ro").running() is Slot.B

    def test_all_parameters_of_a_slot_must_be_there(self, tmp_path: Path) -> None:
        slots = {"a": "root=/dev/mapper/root boot_uuid=1", "b": "root=/dev/mapper/root boot_uuid=2"}
        assert self.roots(tmp_path, "root=/dev/mapper/root boot_uuid=2", **slots).running() is Slot.B
        with pytest.raises(NodeFailure, match="neither slot"):
            self.roots(tmp_path, "root=/dev/mapper/root", **slots).running()

    @pytest.mark.parametrize("found", ["root=/dev/vda2", "root=/dev/disk/by-partlabel/slot-b", "root=PARTLABEL=slot-b"])
    def test_another_name_of_the_same_device_counts(self, tmp_path: Path, found: str) -> None:
        devices = tmp_path / "dev"
        for folder in ("by-partuuid", "by-partlabel"):
            (devices / "disk" / folder).mkdir(parents=True)
        for letter, node in (("a", "vda1"), ("b", "vda2")):
            (devices / node).touch()
            (devices / "disk" / "by-partuuid" / (letter * 4)).symlink_to(f"../../{node}")
            (devices / "disk" / "by-partlabel" / f"slot-{letter}").symlink_to(f"../../{node}")
        assert self.roots(tmp_path, found).running() is Slot.B

    def test_a_root_that_fits_both_is_a_failure(self, tmp_path: Path) -> None:
        with pytest.raises(NodeFailure, match="fits both slots"):
            self.roots(tmp_path, "root=PARTUUID=AAAA root=PARTUUID=BBBB").running()

    def test_a_command_line_that_cant_be_read_is_a_failure(self, tmp_path: Path) -> None:
        roots = self.roots(tmp_path, "")
        (tmp_path / "cmdline").unlink()
        with pytest.raises(NodeFailure, match="can't be read"):
            roots.running()

    @pytest.mark.parametrize(
        "slots",
        [
            {"a": ""},
            {"a": " "},
            {"a": "root=1\n"},
            {"b": "root=PARTUUID=aaaa"},
            {"a": 'root="/dev/sda1"'},
            {"b": "root=UUID=1", "a": "root=UUID=1"},
        ],
    )
    def test_slots_that_cant_be_told_apart_are_refused(self, tmp_path: Path, slots: dict[str, str]) -> None:
        with pytest.raises(InvalidValue):
            self.roots(tmp_path, "", **slots)
