"""The target `emulated`: a whole ARM64 Debian machine under QEMU, made from packages, without a board.

root (files of the guest) -> initrd -> image (kernel, initrd, disk, keys) -> machine (started, frozen, killed, stopped).
"""
