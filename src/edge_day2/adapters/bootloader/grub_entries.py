"""The entry files that a static grub.cfg sources, and the part of grub.cfg that does it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from edge_day2.adapters.bootloader.boot_partition import EntryText
from edge_day2.adapters.bootloader.kernel_parameters import refused, split
from edge_day2.adapters.bootloader.remembered_command_line import asked_for, remembered
from edge_day2.adapters.durable_files import remove_file, replace_file
from edge_day2.domain.observation import BootEntry, Slot

# The kernel parameter by which a running kernel says which entry started it. The kernel takes a name with a dot for a
# module's, and ignores it where there is no such module.
PARAMETER: Final = "edge_day2.entry"
_ENTRIES: Final = tuple(BootEntry(slot, variant) for slot in Slot for variant in (0, 1))
_FILE: Final = re.compile(r'"\$edge_day2/([^"/]+)"')
_LARGEST_BYTES: Final = 64 * 1024


def short_name(entry: BootEntry) -> str:
    """Return how an entry is called on the kernel command line: a, a-1, b, b-1."""
    return entry.slot.value.lower() + (f"-{entry.variant}" if entry.variant else "")


def entry_id(entry: BootEntry) -> str:
    """Return the id of an entry in GRUB's menu and environment."""
    return f"edge_day2-{short_name(entry)}"


def entry_named(name: str) -> BootEntry | None:
    """Return the entry with this id or short name, None where there is none."""
    return next((entry for entry in _ENTRIES if name in (entry_id(entry), short_name(entry))), None)


def grub_configuration(folder: str = "($root)/edge_day2") -> str:
    """Return what grub.cfg needs to start our entries. It stays the same for the node's whole life.

    The default is `saved_entry`. `next_entry` is taken once: where GRUB can't take it back (its file system is one that
    GRUB doesn't write: btrfs, LVM, RAID), it isn't taken at all, because it would be taken for ever.

    Args:
        folder: the folder of entries and kernels as GRUB sees it.
    """
    return f"""\
set edge_day2="{folder}"
export edge_day2
set timeout=0
load_env saved_entry next_entry
set default="${{saved_entry}}"
if [ -n "${{next_entry}}" ]; then
    set edge_day2_trial="${{next_entry}}"
    set next_entry=
    if save_env next_entry; then
        set default="${{edge_day2_trial}}"
    fi
fi
for name in {" ".join(map(short_name, _ENTRIES))}; do
    if [ -f "${{edge_day2}}/edge_day2-${{name}}.cfg" ]; then
        source "${{edge_day2}}/edge_day2-${{name}}.cfg"
    fi
done
"""


def render(entry: BootEntry, text: EntryText) -> bytes:
    """Return an entry file.

    A kernel that GRUB can't load makes it wait at its menu for ever; rebooting instead takes the default entry.

    Raises:
        NodeFailure: a kernel parameter can't be quoted for GRUB. Conclusive.
    """
    words = " ".join(map(_quoted, split(text.options)))
    version = f", Linux {text.version}" if re.fullmatch(r"[\w.+~-]+", text.version) else ""
    load = f'linux "{text.kernel}" {words}'
    initrds = " ".join(f'"{initrd}"' for initrd in text.initrds)
    start = f"if initrd {initrds}; then boot; fi" if initrds else "boot"
    return f"""\
{remembered(text.kernel_command_line)}
menuentry '{text.title}{version}' --id '{entry_id(entry)}' --unrestricted {{
    if {load}; then
        {start}
    fi
    sleep 5
    reboot
}}
""".encode()


def parse(content: bytes) -> EntryText | None:
    """Return what an entry file of ours says, without its parameters; None where it is something else."""
    text = content.decode("utf-8", errors="replace")
    names = _FILE.findall(text)
    if not names or not text.rstrip().endswith("}"):
        return None
    kernel, *initrds = (f"$edge_day2/{name}" for name in names)
    return EntryText(kernel=kernel, initrds=tuple(initrds), kernel_command_line=asked_for(text.splitlines()))


class GrubEntries:
    """The entry files in one folder of the boot partition, beside the kernels."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def files(self, entry: BootEntry) -> list[Path]:
        """See `EntryFiles`."""
        path = self._path(entry)
        return [path] if path.is_file() else []

    def present(self) -> list[BootEntry]:
        """Return the entries that have a file.

        Raises:
            OSError: the partition can't be read.
        """
        return [entry for entry in _ENTRIES if self.files(entry)]

    def read(self, path: Path) -> EntryText | None:
        """See `EntryFiles`."""
        try:
            with path.open("rb") as file:
                return parse(file.read(_LARGEST_BYTES))
        except FileNotFoundError:
            return None

    def replace(self, entry: BootEntry, text: EntryText) -> None:
        """See `EntryFiles`."""
        replace_file(self._path(entry), render(entry, text))

    def remove(self, entry: BootEntry) -> None:
        """See `EntryFiles`."""
        remove_file(self._path(entry))

    def used_paths(self, but: BootEntry | None = None) -> set[Path]:
        """See `EntryFiles`."""
        used: set[Path] = set()
        for entry in self.present():
            text = self.read(self._path(entry))
            if text is not None and entry != but:
                used.update(map(self.on_partition, (text.kernel, *text.initrds)))
        return used

    def on_partition(self, path: str) -> Path:
        """See `EntryFiles`."""
        return self._folder / path.removeprefix("$edge_day2/")

    def seen_by_loader(self, path: Path) -> str:
        """See `EntryFiles`."""
        return f"$edge_day2/{path.relative_to(self._folder)}"

    def file_of(self, entry: BootEntry) -> Path:
        """Return where the file of an entry is, or would be."""
        return self._path(entry)

    def _path(self, entry: BootEntry) -> Path:
        return self._folder / f"{entry_id(entry)}.cfg"


def _quoted(word: str) -> str:
    # GRUB puts double quotes around a word with spaces for the kernel, and backslashes before quotes of its own.
    bare = word.replace('"', "")
    if "'" in bare or "\\" in bare:
        raise refused(word, "no single quote and no backslash, which GRUB would change")
    return f"'{bare}'"
