"""The real grub-mkconfig, with all its scripts, on a root file system of its own: an ext4 image behind loop devices.

10_linux refuses a root on a loop device whose file isn't a device, so there is a loop device on a loop device.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from edge_day2.adapters.grub_configuration import menu_entries
from edge_day2.adapters.grub_drop_in import GrubDropIn
from edge_day2.ports.failures import NodeFailure

TOOLS = ("grub-mkconfig", "grub-probe", "grub-script-check", "losetup", "mkfs.ext4", "unshare")

IN_ROOT = """#!/bin/sh
# make-configuration -o FILE: what grub-mkconfig makes inside the image.
exec unshare --mount --propagation private sh -ec '
    outer= inner=
    trap "umount -R {root} 2>/dev/null; losetup -d \\$outer 2>/dev/null; losetup -d \\$inner 2>/dev/null" EXIT
    inner=$(losetup --find --show {image})
    outer=$(losetup --find --show $inner)
    mount $outer {root}
    for folder in /usr /dev /proc; do mount --rbind $folder {root}$folder; done
    mount --bind {etc}/default {root}/etc/default
    mount --bind {boot}/grub {root}/boot/grub
    chroot {root} grub-mkconfig -o /boot/grub/$(basename $1)
' sh "$2"
"""


def _missing() -> str:
    if missing := [tool for tool in TOOLS if shutil.which(tool) is None]:
        return f"needs {', '.join(missing)} (grub-common, grub2-common, e2fsprogs, util-linux)"
    if os.geteuid() != 0:
        return "needs root, for loop devices and a mount namespace"
    return "" if Path("/dev/loop-control").exists() else "needs loop devices"


pytestmark = pytest.mark.skipif(bool(_missing()), reason=_missing())


@pytest.fixture
def grub(tmp_path: Path) -> GrubDropIn:
    etc, boot, root, proc = (tmp_path / name for name in ("etc", "boot", "root", "proc"))
    for folder in (etc / "default/grub.d", boot / "grub", root, proc / "sys/kernel/random"):
        folder.mkdir(parents=True)
    shutil.copytree("/etc/grub.d", etc / "grub.d")
    (etc / "default/grub").write_text('GRUB_DISTRIBUTOR=Debian\nGRUB_CMDLINE_LINUX_DEFAULT="quiet"\n')
    for version in ("6.1.0-1-amd64", "6.1.0-10-amd64"):
        (boot / f"vmlinuz-{version}").write_text("kernel")
        (boot / f"initrd.img-{version}").write_text("initrd")
    (boot / "grub/grub.cfg").write_text("# made when the node was installed\n")
    (proc / "cmdline").write_text("BOOT_IMAGE=/boot/vmlinuz-6.1.0-10-amd64 root=/dev/vda ro quiet\n")
    (proc / "sys/kernel/random/boot_id").write_text("1\n")
    image, script = tmp_path / "image", tmp_path / "make-configuration"
    content = tmp_path / "content"
    for name in ("usr", "dev", "proc", "tmp"):
        (content / name).mkdir(parents=True)
    for link in ("bin", "sbin", "lib", "lib64"):
        (content / link).symlink_to(f"usr/{link}")
    shutil.copytree(etc, content / "etc")
    shutil.copytree(boot, content / "boot")
    subprocess.run(["mkfs.ext4", "-q", "-d", content, image, "8M"], check=True)
    script.write_text(IN_ROOT.format(image=image, root=root, etc=etc, boot=boot))
    script.chmod(0o755)
    return GrubDropIn(
        drop_in=etc / "default/grub.d/90-edge-day2.cfg",
        superseded=(etc / "default/grub.d/90-platform-update-agent.cfg",),
        configuration=boot / "grub/grub.cfg",
        boot=boot,
        memory=tmp_path / "grub.json",
        proc=proc,
        make_configuration=(str(script), "-o"),
    )


def test_the_real_grub_mkconfig_adds_our_parameters_to_every_normal_entry(grub: GrubDropIn, tmp_path: Path) -> None:
    assert grub.set_kernel_command_line("console=ttyS0,115200n8 nosmt")

    configuration = tmp_path / "boot/grub/grub.cfg"
    entries = list(menu_entries(configuration.read_text()))
    normal = [entry for entry in entries if "single" not in entry.parameters]
    assert [entry.kernel for entry in entries][:2] == ["/boot/vmlinuz-6.1.0-10-amd64"] * 2
    assert len(normal) == 3
    assert {entry.parameters[-3:] for entry in normal} == {("quiet", "console=ttyS0,115200n8", "nosmt")}
    assert {entry.initrds for entry in normal[:2]} == {("/boot/initrd.img-6.1.0-10-amd64",)}
    assert configuration.stat().st_mode & 0o777 == 0o444
    assert sorted(path.name for path in configuration.parent.iterdir()) == ["grub.cfg"]


def test_the_real_grub_mkconfig_finds_another_drop_in_that_a_shell_trips_over(grub: GrubDropIn, tmp_path: Path) -> None:
    grub.set_kernel_command_line("nosmt")
    configuration = (tmp_path / "boot/grub/grub.cfg").read_text()
    (tmp_path / "etc/default/grub.d/50-theirs.cfg").write_text("GRUB_TERMINAL='\n")

    with pytest.raises(NodeFailure, match="Unterminated quoted string"):
        grub.set_kernel_command_line("nosmt debug")

    assert (tmp_path / "boot/grub/grub.cfg").read_text() == configuration
    assert "debug" not in (tmp_path / "etc/default/grub.d/90-edge-day2.cfg").read_text()


def test_a_drop_in_of_others_that_takes_our_parameters_away_is_told(grub: GrubDropIn, tmp_path: Path) -> None:
    (tmp_path / "etc/default/grub.d/99-theirs.cfg").write_text('GRUB_CMDLINE_LINUX_DEFAULT="splash"\n')

    with pytest.raises(NodeFailure, match=r"expected an entry .* nosmt, found .* ro splash"):
        grub.set_kernel_command_line("nosmt")
