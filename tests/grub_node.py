"""Files of a node that boots by GRUB, in a folder, and a script that makes its grub.cfg as grub-mkconfig does."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from uuid import uuid4

from edge_day2.adapters.grub_configuration import menu_entries
from edge_day2.adapters.grub_drop_in import GrubDropIn

ANYTHING = re.compile(r"[\s\S]*")

MAKE_CONFIGURATION = """#!/bin/sh
set -e
{before}
GRUB_CMDLINE_LINUX_DEFAULT="quiet"
for file in {drop_ins}/*.cfg; do
  if [ -e "$file" ]; then . "$file"; fi
done
for kernel in {boot}/vmlinuz-*; do
  name=$(basename "$kernel")
  cat >> "$2" <<END
menuentry 'Debian GNU/Linux' --class debian $menuentry_id_option 'gnulinux-$name' {{
	insmod gzio
	linux	/vmlinuz-${{name#vmlinuz-}} root=UUID=0-1 ro  $GRUB_CMDLINE_LINUX_DEFAULT
	initrd	/initrd.img-${{name#vmlinuz-}}
}}
END
done
{after}
"""


class GrubNode:
    """Files of a node that boots by GRUB, in a folder."""

    def __init__(self, folder: Path) -> None:
        self.boot = folder / "boot"
        self.configuration = self.boot / "grub" / "grub.cfg"
        self.drop_ins = folder / "etc" / "default" / "grub.d"
        self.drop_in = self.drop_ins / "90-edge-day2.cfg"
        self.original = self.drop_ins / "90-platform-update-agent.cfg"
        self.memory = folder / "var" / "grub.json"
        self.proc = folder / "proc"
        self.script = folder / "make-configuration"
        for created in (self.configuration.parent, self.drop_ins, self.proc / "sys/kernel/random"):
            created.mkdir(parents=True)
        (self.boot / "vmlinuz-6.1").write_text("kernel")
        (self.boot / "initrd.img-6.1").write_text("initrd")
        self.behave()
        self.make()
        self.start()

    def behave(self, before: str = "", after: str = "") -> None:
        """Let the script that makes grub.cfg do something else besides."""
        text = MAKE_CONFIGURATION.format(boot=self.boot, drop_ins=self.drop_ins, before=before, after=after)
        self.script.write_text(text)
        self.script.chmod(0o755)

    def make(self) -> None:
        """Make grub.cfg from the files as they are, as a kernel package does."""
        self.configuration.unlink(missing_ok=True)
        subprocess.run([self.script, "-o", self.configuration], check=True)

    def start(self) -> None:
        """Boot: the first entry of grub.cfg becomes the running kernel's command line."""
        entry = next(menu_entries(self.configuration.read_text()))
        (self.proc / "cmdline").write_text(f"BOOT_IMAGE={entry.kernel} {' '.join(entry.parameters)}\n")
        (self.proc / "sys/kernel/random/boot_id").write_text(f"{uuid4()}\n")

    def grub(self, timeout_seconds: float = 60, alphabet: re.Pattern[str] = ANYTHING) -> GrubDropIn:
        """Return the adapter on these files."""
        return GrubDropIn(
            drop_in=self.drop_in,
            superseded=(self.original,),
            configuration=self.configuration,
            boot=self.boot,
            memory=self.memory,
            proc=self.proc,
            make_configuration=(str(self.script), "-o"),
            timeout_seconds=timeout_seconds,
            alphabet=alphabet,
        )

    def parameters(self) -> tuple[str, ...]:
        """Return what the next boot gives to the kernel."""
        return next(menu_entries(self.configuration.read_text())).parameters

    def files(self) -> dict[str, str]:
        """Return the drop-ins and grub.cfg."""
        found = [*self.drop_ins.iterdir(), *self.configuration.parent.iterdir()]
        return {path.name: path.read_text() for path in found}
