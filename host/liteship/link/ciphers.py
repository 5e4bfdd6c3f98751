"""Which cipher a link uses: AES-GCM where the board's CPU has AES instructions, AES-CTR where it has none.

A Raspberry Pi 4 has none: OpenSSL's AES-256-GCM makes about 24 MB/s there in 64-bit mode (56 / 2.3, from
openssl/openssl#16573), while its bit-sliced AES serves CTR (openssl/openssl#14592). paramiko has no ChaCha20, which
such boards would like best. Nobody has measured this link on one; on an x86 server without these instructions both
were alike (medians 23 and 20 MB/s, 60 MB, seven rounds on a busy machine).
"""

from __future__ import annotations

from collections.abc import Iterable

import paramiko

from liteship.link.waiting import within

WITH_AES = "aes128-gcm@openssh.com"
WITHOUT_AES = "aes128-ctr"


def put_first(transport: paramiko.Transport, cipher: str) -> None:
    """Ask for a cipher before all others, at this key exchange or the next one."""
    options = transport.get_security_options()
    options.ciphers = sorted(options.ciphers, key=lambda other: other != cipher)


def prefer_cipher_for(transport: paramiko.Transport, cpu_flags: Iterable[str], seconds: float) -> str:
    """Exchange keys anew, in place, where the other side's CPU has no AES instructions.

    Args:
        transport: After login, with no command running.
        cpu_flags: `Features` or `flags` of /proc/cpuinfo there; none are known where there are none.
        seconds: Limit for the key exchange.
    Returns:
        The cipher in use; the one from before where the other side does not take the wished one.
    Raises:
        OSError, EOFError, SSHException: the link was lost.
    """
    flags = set(cpu_flags)
    if flags and "aes" not in flags and transport.local_cipher == WITH_AES:
        put_first(transport, WITHOUT_AES)
        within(seconds, transport.renegotiate_keys)
    return str(transport.local_cipher)
