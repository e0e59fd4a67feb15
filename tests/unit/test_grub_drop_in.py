"""The kernel command line through GRUB: what is written, what is checked, and what is left after anything went wrong.

The shell that sources the drop-in, and GRUB's syntax check, are real. grub-mkconfig is a script of the test that reads
the same files and writes a grub.cfg of the same form; tests/system/test_grub_mkconfig.py runs the real one.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from attrs import evolve
from hypothesis import example, given
from hypothesis import strategies as st

from edge_day2.adapters.grub_configuration import drop_in_of, kernel_parameters, menu_entries, parameters_of
from edge_day2.domain.resources import KERNEL_COMMAND_LINE
from edge_day2.domain.statuses import FailureReason
from edge_day2.errors import InvalidResource
from edge_day2.ports.failures import NodeFailure
from edge_day2.ports.grub import GrubPort
from edge_day2.testing.faults import Calls, Fault, PlannedFault
from edge_day2.testing.grub_contract import GrubContract
from edge_day2.testing.model_apt_node import ModelAptNode
from grub_node import ANYTHING, GrubNode

needs_grub = pytest.mark.skipif(
    shutil.which("grub-script-check") is None, reason="needs grub-script-check (grub-common)"
)


@pytest.fixture
def node(tmp_path: Path) -> GrubNode:
    return GrubNode(tmp_path)


@needs_grub
class TestGrub(GrubContract):
    """The real adapter."""

    @pytest.fixture
    def grub(self, node: GrubNode) -> GrubPort:
        return node.grub()

    @pytest.fixture
    def boot_node(self, node: GrubNode) -> Callable[[], None]:
        return node.start

    @pytest.fixture
    def break_boot_loader(self, node: GrubNode, tmp_path: Path) -> Callable[[], None]:
        once = tmp_path / "failed"
        return lambda: node.behave(before=f"if [ ! -e {once} ]; then touch {once}; exit 1; fi")


class TestModelAptNode(GrubContract):
    """The simulated node."""

    @pytest.fixture
    def grub(self) -> GrubPort:
        return ModelAptNode()

    @pytest.fixture
    def boot_node(self, grub: ModelAptNode) -> Callable[[], None]:
        return lambda: grub.come_up(grub.boot + 1)

    @pytest.fixture
    def break_boot_loader(self, grub: ModelAptNode) -> Callable[[], None]:
        def plan() -> None:
            grub.calls = Calls(PlannedFault(1, Fault.FAILS))

        return plan


@given(st.text() | st.text(alphabet="ab=1,. -_$`'\"\\\n;&|<>(){}#*?!~[]%", max_size=12))
@example('quiet"; touch /tmp/x; "')
@example("a=$(id)")
@example("a\n")
@example("a=[b]!c^d~e%f@g+h:i")
def test_nothing_gets_through_the_shell_that_sources_the_drop_in(text: str) -> None:
    try:
        parameters = kernel_parameters(text, alphabet=ANYTHING)
    except InvalidResource:
        return

    drop_in = drop_in_of(parameters)
    script = 'set -u; GRUB_CMDLINE_LINUX_DEFAULT="quiet"; eval "$1"; printf "%s" "$GRUB_CMDLINE_LINUX_DEFAULT"'
    sourced = subprocess.run(["sh", "-c", script, "sh", drop_in], capture_output=True, check=True)

    assert sourced.stdout.decode() == " ".join(["quiet", *parameters])
    assert sourced.stderr == b""
    assert parameters_of(drop_in) == parameters


@needs_grub
@given(st.lists(st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9\-_=.,/:+@%~^!\[\]]{0,20}", fullmatch=True), min_size=1))
def test_what_is_accepted_is_no_syntax_of_grub(words: list[str]) -> None:
    try:
        parameters = kernel_parameters(" ".join(words)[:500], alphabet=ANYTHING)
    except InvalidResource:
        return
    entry = f"menuentry 'x' {{\n\tlinux /vmlinuz root=/dev/sda {' '.join(parameters)}\n}}\n"

    subprocess.run(["grub-script-check"], input=entry.encode(), check=True)


@pytest.mark.parametrize("text", ["console=ttyS0,115200n8 ipv6.disable=1", "", "  quiet   splash ", "a=b/c_d-e.f"])
def test_the_alphabet_of_the_original_is_the_default(text: str) -> None:
    assert kernel_parameters(text) == tuple(text.split())


@pytest.mark.parametrize(
    "text",
    [
        "crashkernel=1G-4G:192M",
        "a=b+c",
        "a\tb",
        "a\n",
        "-- init",
        "-b",
        "root=/dev/sdb",
        "init=/bin/sh",
        "a" * 501,
        "é",
    ],
)
def test_what_a_shell_grub_or_the_boot_could_trip_over_is_refused(text: str, node: GrubNode) -> None:
    before = node.files()

    with pytest.raises(NodeFailure, match="kernel") as refused:
        node.grub(alphabet=KERNEL_COMMAND_LINE).set_kernel_command_line(text)

    assert refused.value.reason is FailureReason.UT_BOOT_CONFIGURATION
    assert node.files() == before


@needs_grub
def test_our_parameters_are_added_to_those_of_the_distribution(node: GrubNode) -> None:
    node.grub().set_kernel_command_line("console=ttyS0,115200n8 nosmt")

    assert node.parameters()[-3:] == ("quiet", "console=ttyS0,115200n8", "nosmt")
    assert node.drop_in.read_text().endswith('="$GRUB_CMDLINE_LINUX_DEFAULT console=ttyS0,115200n8 nosmt"\n')


@needs_grub
def test_the_file_of_the_original_agent_is_taken_over(node: GrubNode) -> None:
    node.original.write_text('GRUB_CMDLINE_LINUX_DEFAULT="old=1 nosmt"\n')
    node.make()
    node.start()

    assert node.grub().set_kernel_command_line("nosmt")

    assert not node.original.exists()
    assert node.parameters()[-2:] == ("quiet", "nosmt")
    node.start()
    assert not node.grub().set_kernel_command_line("nosmt")


@needs_grub
def test_a_file_of_the_original_agent_that_comes_back_is_removed_again(node: GrubNode) -> None:
    node.grub().set_kernel_command_line("nosmt")
    node.original.write_text('GRUB_CMDLINE_LINUX_DEFAULT="nosmt"\n')
    node.make()

    node.grub().set_kernel_command_line("nosmt")

    assert sorted(node.files()) == ["90-edge-day2.cfg", "grub.cfg"]
    assert node.parameters()[-2:] == ("quiet", "nosmt")


@needs_grub
@pytest.mark.parametrize(("line", "mode"), [("password_pbkdf2 root grub.pbkdf2", 0o600), ("set x=password", 0o444)])
def test_a_configuration_with_a_password_is_for_root_alone(node: GrubNode, line: str, mode: int) -> None:
    node.behave(after=f"echo '{line}' >> \"$2\"")

    node.grub().set_kernel_command_line("nosmt")

    assert node.configuration.stat().st_mode & 0o777 == mode


@needs_grub
def test_a_parameter_that_the_distribution_gives_too_is_not_missed(node: GrubNode) -> None:
    node.grub().set_kernel_command_line("quiet nosmt")
    node.start()

    assert not node.grub().set_kernel_command_line("nosmt")


@needs_grub
def test_a_parameter_that_comes_from_elsewhere_does_not_ask_for_boots_for_ever(node: GrubNode) -> None:
    node.grub().set_kernel_command_line("one=1")
    node.start()
    assert node.grub().set_kernel_command_line("two=2")

    node.start()
    cmdline = node.proc / "cmdline"
    cmdline.write_text(f"{cmdline.read_text().strip()} one=1\n")

    assert not node.grub().set_kernel_command_line("two=2")


@needs_grub
def test_what_is_there_already_is_not_made_again(node: GrubNode) -> None:
    node.grub().set_kernel_command_line("one=1")
    node.behave(before="exit 1")

    assert node.grub().set_kernel_command_line("one=1")


@needs_grub
def test_what_is_there_but_does_not_boot_is_made_again(node: GrubNode) -> None:
    node.grub().set_kernel_command_line("one=1")
    node.configuration.chmod(0o600)
    node.configuration.write_text("# empty\n")

    assert node.grub().set_kernel_command_line("one=1")
    assert node.parameters()[-1] == "one=1"


@needs_grub
@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        ("echo sorry, no; exit 3", "", "status 3: sorry, no"),
        ("sleep 600", "", "killed, not done after"),
        ("exit 0", "", "wrote no file"),
        ("", "echo 'menuentry {{' >> \"$2\"", "grub-script-check"),
        ("", 'head -c 2000 /dev/urandom > "$2"', "grub-script-check|expected an entry"),
        ("", 'echo set x=1 > "$2"', "found no entry"),
        ("", 'sed -i s/vmlinuz-/vmlinux-/ "$2"', "expected an entry with a kernel"),
        ("", 'sed -i s/initrd.img-/initrd.gone-/ "$2"', "expected an entry with a kernel"),
        ("", 'sed -i s/nosmt/smt/ "$2"', "found /vmlinuz-6.1 root=UUID=0-1 ro quiet one=1 smt"),
    ],
    ids=[
        "fails",
        "hangs",
        "writes nothing",
        "bad syntax",
        "garbage",
        "no entry",
        "no kernel",
        "no initrd",
        "parameter",
    ],
)
def test_a_configuration_that_was_not_made_or_does_not_boot_is_never_put_in_place(
    node: GrubNode, before: str, after: str, said: str
) -> None:
    node.grub().set_kernel_command_line("one=1")
    files = node.files()
    node.behave(before, after)

    with pytest.raises(NodeFailure, match=said) as failed:
        node.grub(timeout_seconds=2 if "sleep" in before else 60).set_kernel_command_line("one=1 nosmt")

    assert failed.value.reason is FailureReason.UT_BOOT_CONFIGURATION
    assert node.files() == files
    node.behave()
    assert node.grub().set_kernel_command_line("one=1 nosmt")


@needs_grub
def test_both_failures_are_said_where_the_way_back_fails_too(node: GrubNode) -> None:
    configuration = node.configuration.read_text()
    node.behave(before="echo sorry; exit 3")

    with pytest.raises(NodeFailure, match=r"sorry; the earlier configuration couldn't be made again either.*sorry"):
        node.grub().set_kernel_command_line("one=1")

    assert not node.drop_in.exists()
    assert node.configuration.read_text() == configuration


@needs_grub
@pytest.mark.parametrize("name", ["drop_in", "original", "configuration"])
def test_a_symbolic_link_is_refused_and_its_target_left_alone(node: GrubNode, tmp_path: Path, name: str) -> None:
    victim = tmp_path / "victim"
    path: Path = getattr(node, name)
    victim.write_text("precious")
    path.unlink(missing_ok=True)
    path.symlink_to(victim)

    with pytest.raises(NodeFailure, match="no symbolic link"):
        node.grub().set_kernel_command_line("one=1")

    assert victim.read_text() == "precious"
    assert path.is_symlink()


@needs_grub
def test_a_folder_that_is_a_symbolic_link_is_refused(node: GrubNode, tmp_path: Path) -> None:
    node.drop_ins.rename(tmp_path / "elsewhere")
    node.drop_ins.symlink_to(tmp_path / "elsewhere")

    with pytest.raises(NodeFailure, match="no symbolic link"):
        node.grub().set_kernel_command_line("one=1")

    assert list((tmp_path / "elsewhere").iterdir()) == []


@needs_grub
def test_links_that_wait_beside_grub_cfg_are_not_followed(node: GrubNode, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    for name in ("grub.cfg.edge-day2-0", "grub.cfg.new"):
        (node.configuration.parent / name).symlink_to(victim)

    node.grub().set_kernel_command_line("one=1")

    assert victim.read_text() == "precious"
    assert sorted(node.files()) == ["90-edge-day2.cfg", "grub.cfg"]


@needs_grub
def test_a_node_without_grub_cfg_is_not_given_one(node: GrubNode) -> None:
    node.configuration.unlink()

    with pytest.raises(NodeFailure, match="expected a node that boots by GRUB"):
        node.grub().set_kernel_command_line("one=1")

    assert node.files() == {}


@needs_grub
@pytest.mark.parametrize("content", ["", "{", "[]", '{"boot_id": 1}', '{"boot_id": "", "removed": 5, "earlier": null}'])
def test_a_memory_that_can_not_be_read_is_replaced(node: GrubNode, content: str) -> None:
    node.grub().set_kernel_command_line("one=1")
    node.memory.write_text(content)

    assert node.grub().set_kernel_command_line("one=1")
    assert json.loads(node.memory.read_text())["earlier"] is None


@needs_grub
def test_a_memory_never_names_files_of_others_to_write(node: GrubNode, tmp_path: Path) -> None:
    boot_id = (node.proc / "sys/kernel/random/boot_id").read_text().strip()
    earlier = {str(tmp_path / "victim"): "x", str(node.drop_in): None, str(node.original): None}
    node.memory.parent.mkdir()
    node.memory.write_text(json.dumps({"boot_id": boot_id, "removed": [], "earlier": earlier}))
    node.behave(before="exit 1")

    with pytest.raises(NodeFailure):
        node.grub().set_kernel_command_line("one=1")

    assert not (tmp_path / "victim").exists()


@needs_grub
@pytest.mark.parametrize("path", ["drop_in", "memory", "configuration"])
def test_a_full_disk_leaves_the_earlier_command_line(
    node: GrubNode, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    node.grub().set_kernel_command_line("one=1")
    files = node.files()
    full: Path = getattr(node, path)
    fsync = os.fsync

    def no_space(descriptor: int) -> None:
        if Path(f"/proc/self/fd/{descriptor}").readlink().name == f"{full.name}.new":
            raise OSError(28, "No space left on device")
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", no_space)
    with pytest.raises(NodeFailure, match="No space left"):
        node.grub().set_kernel_command_line("two=2")
    monkeypatch.undo()

    assert {**node.files(), node.drop_in.name: ""} == {**files, node.drop_in.name: ""}
    assert node.grub().set_kernel_command_line("one=1")
    assert node.files() == files


SET = """
import os, signal, sys
from pathlib import Path
from edge_day2.adapters.grub_drop_in import GrubDropIn

folder, calls = Path(sys.argv[1]), int(sys.argv[3])
fsync = os.fsync

def count(descriptor):
    global calls
    calls -= 1
    if calls == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    fsync(descriptor)

os.fsync = count
drop_ins = folder / "etc/default/grub.d"
GrubDropIn(
    drop_in=drop_ins / "90-edge-day2.cfg",
    superseded=(drop_ins / "90-platform-update-agent.cfg",),
    configuration=folder / "boot/grub/grub.cfg",
    boot=folder / "boot",
    memory=folder / "var/grub.json",
    proc=folder / "proc",
    make_configuration=(str(folder / "make-configuration"), "-o"),
).set_kernel_command_line(sys.argv[2])
"""


@needs_grub
@pytest.mark.parametrize("boots", [False, True], ids=["agent starts again", "power cut"])
@pytest.mark.parametrize("wanted", ["one=1", "two=2", "three=3"])
@pytest.mark.parametrize("where", ["before", "after"])
def test_a_process_killed_while_grub_is_configured_is_finished_by_the_next_call(
    node: GrubNode, tmp_path: Path, where: str, wanted: str, boots: bool
) -> None:
    node.grub().set_kernel_command_line("one=1")
    node.start()
    reached = tmp_path / "reached"
    node.behave(**{where: f"echo $$ > {reached}.new; mv {reached}.new {reached}; exec sleep 600"})
    process = subprocess.Popen([sys.executable, "-c", SET, tmp_path, "two=2", "0"])
    try:
        while not reached.exists():
            assert process.poll() is None
            # A look now and then at what can't be waited for; whatever goes wrong ends the loop.
            time.sleep(0.02)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
        os.kill(int(reached.read_text()), signal.SIGKILL)
    assert "two=2" in node.drop_in.read_text()
    node.behave()
    if boots:
        node.start()

    needed = node.grub().set_kernel_command_line(wanted)

    assert needed is (wanted != "one=1")
    assert node.parameters()[-2:] == ("quiet", wanted)
    assert sorted(node.files()) == ["90-edge-day2.cfg", "grub.cfg"]
    node.start()
    assert not node.grub().set_kernel_command_line(wanted)


@needs_grub
@pytest.mark.parametrize("boots", [False, True], ids=["agent starts again", "power cut"])
@pytest.mark.parametrize("wanted", ["one=1", "two=2", "three=3"])
def test_a_process_killed_at_any_of_its_writes_is_finished_by_the_next_call(
    node: GrubNode, tmp_path: Path, wanted: str, boots: bool
) -> None:
    node.original.write_text('GRUB_CMDLINE_LINUX_DEFAULT="one=1"\n')
    node.make()
    node.start()
    whole, status = node.files(), -signal.SIGKILL
    for call in range(1, 100):
        for path in node.drop_ins.iterdir():
            path.unlink()
        for name, content in whole.items():
            path = node.configuration if name == "grub.cfg" else node.drop_ins / name
            path.unlink(missing_ok=True)
            path.write_text(content)
        node.memory.unlink(missing_ok=True)
        node.start()
        status = subprocess.run([sys.executable, "-c", SET, tmp_path, "two=2", str(call)], check=False).returncode
        if boots:
            node.start()
        running = node.grub().running_kernel_command_line().split()

        assert node.grub().set_kernel_command_line(wanted) is (wanted not in running)

        assert node.parameters()[-2:] == ("quiet", wanted)
        assert sorted(node.files()) == ["90-edge-day2.cfg", "grub.cfg"]
        node.start()
        assert not node.grub().set_kernel_command_line(wanted)
        if status == 0:
            break
    assert (status, call > 8) == (0, True)


@needs_grub
def test_a_parameter_that_was_never_booted_before_a_process_was_killed_is_taken_away_all_the_same(
    node: GrubNode, tmp_path: Path
) -> None:
    node.grub().set_kernel_command_line("one=1 two=2")
    whole = node.configuration.read_text()
    # By its fifth flush the new drop-in is in place, and grub.cfg isn't made yet.
    killed = subprocess.run([sys.executable, "-c", SET, tmp_path, "two=2", "5"], check=False).returncode
    assert (killed, node.configuration.read_text()) == (-signal.SIGKILL, whole)
    assert "one=1" not in node.drop_in.read_text()
    node.start()

    for _ in range(2):
        assert node.grub().set_kernel_command_line("two=2")
    node.start()

    assert not node.grub().set_kernel_command_line("two=2")


@needs_grub
def test_a_failure_after_a_process_was_killed_goes_back_to_what_was_whole(node: GrubNode, tmp_path: Path) -> None:
    node.grub().set_kernel_command_line("one=1")
    files = node.files()
    memory = json.loads(node.memory.read_text())
    memory["earlier"] = {str(node.drop_in): files[node.drop_in.name], str(node.original): None}
    node.memory.write_text(json.dumps(memory))
    node.drop_in.write_text('GRUB_CMDLINE_LINUX_DEFAULT="$GRUB_CMDLINE_LINUX_DEFAULT two=2"\n')
    once = tmp_path / "failed"
    node.behave(before=f"if [ ! -e {once} ]; then touch {once}; exit 1; fi")

    with pytest.raises(NodeFailure):
        node.grub().set_kernel_command_line("three=3")

    assert node.files() == files


def test_menu_entries_are_read_as_grub_writes_them() -> None:
    entries = list(
        menu_entries(
            "submenu 'Advanced options' {\n"
            "\tmenuentry 'Debian, with Linux 6.1' --class debian {\n"
            "\t\tif [ x$grub_platform = xxen ]; then insmod xzio; fi\n"
            "\t\tlinux\t/boot/vmlinuz-6.1 root=UUID=1 ro quiet $vt_handoff\n"
            "\t\tinitrd\t/boot/intel-uc.img /boot/initrd.img-6.1\n"
            "\t}\n"
            "}\n"
            "menuentry 'UEFI Firmware Settings' {\n\tfwsetup\n}\n"
            "linux /not/in/an/entry\n"
        )
    )

    assert [entry.title for entry in entries] == ["Debian, with Linux 6.1"]
    assert evolve(entries[0], title="").parameters == ("root=UUID=1", "ro", "quiet", "$vt_handoff")
    assert entries[0].kernel == "/boot/vmlinuz-6.1"
    assert entries[0].initrds == ("/boot/intel-uc.img", "/boot/initrd.img-6.1")
