"""Asks a server which old versions of TLS and which weak ciphers it would take, by a greeting that offers nothing else.

The machine's own OpenSSL offers few of them any more, so the greeting is written here: a ClientHello as RFC 5246,
section 7.4.1.2 has it. Nothing follows it. RFC 8996 forbids TLS 1.0 and 1.1, RFC 7568 SSL 3, RFC 9325, section 4.1 the
ciphers.
"""

from __future__ import annotations

import os
import socket
import struct
import time
from collections.abc import Sequence
from typing import NamedTuple

SECONDS = 5.0
ANSWER_LIMIT = 16 * 1024
SSL_3, TLS_1_0, TLS_1_1, TLS_1_2 = 0x0300, 0x0301, 0x0302, 0x0303
OLD = {SSL_3: "SSL 3.0", TLS_1_0: "TLS 1.0", TLS_1_1: "TLS 1.1"}
_HANDSHAKE, _SERVER_HELLO = 22, 2
# By their numbers of IANA's registry of TLS cipher suites.
ANY_OLD = (
    *(0xC013, 0xC014, 0xC009, 0xC00A, 0x0033, 0x0039, 0x0032, 0x0038, 0x002F, 0x0035, 0x0041, 0x0084),
    *(0xC012, 0xC008, 0x0016, 0x0013, 0x000A, 0xC011, 0xC007, 0x0005, 0x0004, 0x0009, 0x0007, 0x0015, 0x0012),
)


class Weak(NamedTuple):
    """Ciphers that share a weakness: what it is, and whether it is grave."""

    name: str
    suites: tuple[int, ...]
    grave: bool


WEAK = (
    Weak("no encryption (NULL)", (0x0001, 0x0002, 0x003B, 0xC001, 0xC006, 0xC00B, 0xC010), grave=True),
    Weak(
        "no certificate (anonymous)",
        (0x0018, 0x001B, 0x0034, 0x003A, 0x006C, 0x006D, 0x00A6, 0x00A7, 0xC016, 0xC017, 0xC018, 0xC019),
        grave=True,
    ),
    Weak("keys of 40 bits (EXPORT)", (0x0003, 0x0006, 0x0008, 0x000B, 0x000E, 0x0011, 0x0014), grave=True),
    Weak("DES", (0x0009, 0x000C, 0x000F, 0x0012, 0x0015), grave=True),
    Weak("RC4", (0x0004, 0x0005, 0xC002, 0xC007, 0xC00C, 0xC011), grave=False),
    Weak("3DES or IDEA", (0x000A, 0x0007, 0x000D, 0x0010, 0x0013, 0x0016, 0xC003, 0xC008, 0xC00D, 0xC012), grave=False),
)
NO_SECRECY = (0x002F, 0x0035, 0x003C, 0x003D, 0x009C, 0x009D, 0x0041, 0x0084)


def takes(host: str, port: int, version: int, suites: Sequence[int], seconds: float = SECONDS) -> bool:
    """Tell whether the server at `host` goes on with that version and one of `suites`.

    Raises:
        OSError: it cannot be connected to, or does not answer within `seconds`.
    """
    ends = time.monotonic() + seconds
    with socket.create_connection((host, port), timeout=seconds) as connection:
        connection.sendall(_greeting(host, version, suites))
        try:
            answer = _read(connection, ends)
        except ConnectionResetError:
            return False  # which is how some servers refuse
    return _accepted(answer, version, suites)


def _greeting(host: str, version: int, suites: Sequence[int]) -> bytes:
    listed = b"".join(struct.pack(">H", suite) for suite in suites)
    body = struct.pack(">H", version) + os.urandom(32) + b"\0"
    body += _long(listed) + b"\x01\0"
    if version != SSL_3:
        body += _long(_extensions(host, version))
    message = b"\x01" + struct.pack(">I", len(body))[1:] + body
    return struct.pack(">BHH", _HANDSHAKE, min(version, TLS_1_0), len(message)) + message


def _extensions(host: str, version: int) -> bytes:
    name = host.encode("idna") if not _is_address(host) else b""
    found = struct.pack(">H", 0) + _long(_long(b"\0" + _long(name))) if name else b""
    groups = struct.pack(">6H", 29, 23, 24, 25, 256, 257)
    found += struct.pack(">H", 10) + _long(_long(groups))
    found += struct.pack(">H", 11) + _long(b"\x01\0")
    if version == TLS_1_2:
        signatures = bytes.fromhex("0403 0503 0603 0807 0808 0804 0805 0806 0401 0501 0601 0203 0201 0202 0402")
        found += struct.pack(">H", 13) + _long(_long(signatures))
    return found


def _long(content: bytes) -> bytes:
    return struct.pack(">H", len(content)) + content


def _read(connection: socket.socket, ends: float) -> bytes:
    """Read as much of the answer as a ServerHello needs, or all of a shorter one."""
    answer = b""
    while len(answer) < ANSWER_LIMIT and not _is_whole(answer):
        left = ends - time.monotonic()
        if left <= 0:
            raise TimeoutError("it does not answer the greeting in time")
        connection.settimeout(left)
        more = connection.recv(4096)
        if not more:
            break
        answer += more
    return answer


def _is_whole(answer: bytes) -> bool:
    if len(answer) < 5:
        return False
    return len(answer) >= 5 + int.from_bytes(answer[3:5]) or answer[0] != _HANDSHAKE


def _accepted(answer: bytes, version: int, suites: Sequence[int]) -> bool:
    """Tell whether it is a ServerHello (RFC 5246, 7.4.1.3) with that version and one of the suites."""
    if len(answer) < 44 or answer[0] != _HANDSHAKE or answer[5] != _SERVER_HELLO:
        return False
    after = 44 + answer[43]
    if int.from_bytes(answer[9:11]) != version or len(answer) < after + 2:
        return False
    return int.from_bytes(answer[after : after + 2]) in suites


def _is_address(host: str) -> bool:
    return ":" in host or host.replace(".", "").isdigit()
