"""The boot loaders of A/B nodes: systemd-boot and GRUB. docs/boot_loaders.md says how a node is set up."""
