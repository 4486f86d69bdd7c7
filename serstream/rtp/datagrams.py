"""Many UDP datagrams at once: one system call, one array (recvmmsg(2))."""

from __future__ import annotations

import ctypes
import errno
import ipaddress
import logging
import os
import socket
import struct
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from serstream.errors import SourceError

log = logging.getLogger(__name__)

MAX_DATAGRAM = 4096
"""Bytes of the longest datagram that is taken: 20 ms of L16 in stereo at 48 kHz, and more than the standard
MTU of 1500 bytes lets through in one piece."""
TOO_LONG = f"longer than {MAX_DATAGRAM} bytes"
"""Why a datagram was dropped."""
BATCH = 512
"""Datagrams taken by one system call."""
CLOCK_STEP_S = 0.05
"""More than the wall clock is slewed between two reads: it was set."""

IpAddress: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address
Sender: TypeAlias = bytes
"""A sender's address as the kernel writes it (struct sockaddr), 32 bytes, zeros behind."""

_SENDER_LENGTH = 32
_SOCKADDR_IN = struct.Struct("=H2s4s")
_SOCKADDR_IN6 = struct.Struct("=H2s4x16s")
_SO_TIMESTAMPNS = 35
_SO_RXQ_OVFL = 40
_MSG_TRUNC = 0x20
_CONTROL = np.dtype(
    {  # two cmsghdr and what they carry: SO_TIMESTAMPNS always first, SO_RXQ_OVFL only after a drop
        "names": ["stamp_type", "seconds", "nanoseconds", "drops_type", "drops"],
        "formats": ["i4", "i8", "i8", "i4", "u4"],
        "offsets": [12, 16, 24, 44, 48],
        "itemsize": 64,
    }
)
MESSAGE = np.dtype(
    {
        "names": [
            "name",
            "name_length",
            "vector",
            "n_vectors",
            "control",
            "control_length",
            "flags",
            "length",
        ],
        "formats": ["u8", "u4", "u8", "u8", "u8", "u8", "u4", "u4"],
        "offsets": [0, 8, 16, 24, 32, 40, 48, 56],
        "itemsize": 64,
    }
)
"""struct mmsghdr of 64-bit Linux."""
VECTOR = np.dtype([("base", "u8"), ("length", "u8")])
"""struct iovec."""


def sender_at(ip: IpAddress, port: int) -> Sender:
    """The address in the kernel's form."""
    wire_port = port.to_bytes(2, "big")
    if ip.version == 4:
        packed = _SOCKADDR_IN.pack(socket.AF_INET, wire_port, ip.packed)
    else:
        packed = _SOCKADDR_IN6.pack(socket.AF_INET6, wire_port, ip.packed)
    return packed.ljust(_SENDER_LENGTH, b"\0")


def address_of(sender: Sender) -> tuple[IpAddress, int]:
    """IP address and port; an IPv4 sender on an IPv6 socket has its IPv4 address."""
    family = int.from_bytes(sender[:2], "little" if np.little_endian else "big")
    port = int.from_bytes(sender[2:4], "big")
    if family == socket.AF_INET:
        return ipaddress.IPv4Address(sender[4:8]), port
    ip = ipaddress.IPv6Address(sender[8:24])
    return ip.ipv4_mapped or ip, port


def one_port_below(sender: Sender) -> Sender:
    """The same host's next lower port, 65535 below 0; all else as the kernel wrote it."""
    port = int.from_bytes(sender[2:4], "big")
    return sender[:2] + ((port - 1) & 0xFFFF).to_bytes(2, "big") + sender[4:]


@dataclass(slots=True)
class Datagrams:
    """Datagrams as arrays, in order of arrival; valid until the next ones are received."""

    content: NDArray[np.uint8]
    """Shape (n, MAX_DATAGRAM); what lies behind a datagram's length is undefined."""
    lengths: NDArray[np.int64]
    """Shape (n,)."""
    senders: NDArray[np.uint64]
    """Shape (n, 4): a `Sender` each."""
    arrived: NDArray[np.float64]
    """Monotonic seconds, shape (n,)."""

    def __len__(self) -> int:
        return len(self.lengths)

    def datagram(self, i: int) -> bytes:
        """A copy of one datagram."""
        return bytes(self.content[i, : self.lengths[i]])

    def sender(self, i: int) -> Sender:
        """The sender of one datagram."""
        return bytes(self.senders[i])

    @staticmethod
    def of(datagrams: Sequence[tuple[bytes, Sender, float]]) -> Datagrams:
        """The same from single datagrams, none `TOO_LONG`, with their senders and times of arrival."""
        content = np.empty((len(datagrams), MAX_DATAGRAM), np.uint8)
        for row, (datagram, _, _) in zip(content, datagrams, strict=True):
            row[: len(datagram)] = np.frombuffer(datagram, np.uint8)
        return Datagrams(
            content=content,
            lengths=np.array([len(datagram) for datagram, _, _ in datagrams], np.int64),
            senders=np.frombuffer(b"".join(sender for _, sender, _ in datagrams), np.uint64).reshape(-1, 4),
            arrived=np.array([arrived for _, _, arrived in datagrams], np.float64),
        )


Bind: TypeAlias = Callable[[str, int], socket.socket]
"""Opens a non-blocking UDP socket on an address and port, or takes one over that outlived its process."""


class UdpPort:
    """A bound UDP socket that is read in batches, with the kernel's time of arrival and count of drops.

    Raises:
        SourceError: the port cannot be bound, or its multicast group cannot be joined.
    """

    def __init__(self, address: str, port: int, buffer_bytes: int, bind: Bind):
        self.socket = bind(address, port)
        if ipaddress.ip_address(address).is_multicast:
            _join_group(self.socket, address, port)
        if self.socket.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) // 2 < buffer_bytes:
            # A socket from systemd may have more already than we would be granted.
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer_bytes)
        self.buffer_bytes = self.socket.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) // 2
        """Granted by the kernel, which reports twice what it grants (socket(7))."""
        if self.buffer_bytes < buffer_bytes:
            log.warning(
                "rtp %s:%d: the kernel grants a receive buffer of %d kB, %d kB are configured; "
                "raise it with 'sysctl net.core.rmem_max=%d' or lower receive_buffer_kb",
                *(address, port, self.buffer_bytes // 1024, buffer_bytes // 1024, buffer_bytes),
            )
        self.socket.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
        self.socket.setsockopt(socket.SOL_SOCKET, _SO_RXQ_OVFL, 1)
        self.drops = 0
        """Datagrams that the kernel dropped because the buffer was full."""
        self.truncated = 0
        """Datagrams that were dropped because they are `TOO_LONG`."""
        self.is_empty = True
        """Whether the last `receive` has left nothing behind."""
        self._utc_offset = time.time() - time.monotonic()
        self._recvmmsg = ctypes.CDLL(None, use_errno=True).recvmmsg
        self._bytes = np.zeros((BATCH, MAX_DATAGRAM), np.uint8)
        self._senders = np.zeros((BATCH, _SENDER_LENGTH // 8), np.uint64)
        self._controls = np.zeros(BATCH, _CONTROL)
        self._vectors = np.zeros(BATCH, VECTOR)
        self._messages = np.zeros(BATCH, MESSAGE)
        rows = np.arange(BATCH, dtype=np.uint64)
        self._vectors["base"] = self._bytes.ctypes.data + rows * MAX_DATAGRAM
        self._vectors["length"] = MAX_DATAGRAM
        self._messages["name"] = self._senders.ctypes.data + rows * _SENDER_LENGTH
        self._messages["vector"] = self._vectors.ctypes.data + rows * VECTOR.itemsize
        self._messages["n_vectors"] = 1
        self._messages["control"] = self._controls.ctypes.data + rows * _CONTROL.itemsize

    def fileno(self) -> int:
        """For select."""
        return self.socket.fileno()

    def close(self) -> None:
        """Give the port back."""
        self.socket.close()

    def receive(self) -> Datagrams:
        """What lies in the socket's buffer, up to `BATCH` datagrams, without those that are truncated."""
        self._messages["name_length"] = _SENDER_LENGTH
        self._messages["control_length"] = _CONTROL.itemsize
        n = self._recvmmsg(self.fileno(), ctypes.c_void_p(self._messages.ctypes.data), BATCH, 0, None)
        if n < 0:
            # Nothing there, a signal, or an ICMP error of somebody we once answered: nothing to receive.
            n = 0
        messages = self._messages[:n]
        whole = messages["flags"] & _MSG_TRUNC == 0
        self.truncated += n - int(np.count_nonzero(whole))
        self.is_empty = n < BATCH
        senders = self._senders[:n]
        if n:
            senders[messages["name_length"] == 16, 1:] = 0  # IPv4: the rest is of an earlier datagram
            senders[:, 0] &= np.where(messages["name_length"] == 16, _ALL, _WITHOUT_FLOW)
        rows = slice(n) if whole.all() else np.flatnonzero(whole)
        received = Datagrams(
            self._bytes[rows],
            messages["length"][rows].astype(np.int64),
            senders[rows],
            self._arrivals(self._controls[:n])[rows],
        )
        self._count_drops(messages, self._controls[:n])
        return received

    def _arrivals(self, controls: NDArray[np.void]) -> NDArray[np.float64]:
        """The kernel's wall clock stamps as monotonic seconds."""
        now, utc = time.monotonic(), time.time()
        was_set = abs(utc - now - self._utc_offset) > CLOCK_STEP_S
        self._utc_offset = utc - now
        if was_set:  # Some were stamped before, some after: taken for just arrived, they are a tick off.
            return np.full(len(controls), now)
        since = utc - (controls["seconds"] + controls["nanoseconds"] * 1e-9)
        return now - np.where(controls["stamp_type"] == _SO_TIMESTAMPNS, np.maximum(since, 0.0), 0.0)

    def _count_drops(self, messages: NDArray[np.void], controls: NDArray[np.void]) -> None:
        counted = (messages["control_length"] > 32) & (controls["drops_type"] == _SO_RXQ_OVFL)
        if counted.any():
            self.drops = int(controls["drops"][counted][-1])


_ALL = np.uint64(0xFFFF_FFFF_FFFF_FFFF)
_WITHOUT_FLOW = np.frombuffer(b"\xff\xff\xff\xff\0\0\0\0", np.uint64)[0]


def bind(address: str, port: int) -> socket.socket:
    """A UDP socket of our own, non-blocking.

    Raises:
        SourceError: no IP address of this machine, a port that is in use or for root, or too many open files.
    """
    family = socket.AF_INET6 if ipaddress.ip_address(address).version == 6 else socket.AF_INET
    udp: socket.socket | None = None
    try:
        udp = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        udp.bind((address, port))
    except OSError as error:
        if udp:
            udp.close()
        raise SourceError(
            f"rtp {address}:{port}: cannot bind the UDP port: {os.strerror(error.errno or 0)}; "
            f"{_advice(error.errno, port)}"
        ) from error
    return udp


def _join_group(udp: socket.socket, address: str, port: int) -> None:
    """Ask for what is sent to a multicast address, on the interface of its scope or else of its route."""
    group = ipaddress.ip_address(address)
    try:
        if group.version == 4:
            udp.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, group.packed + bytes(4))
        else:
            interface = struct.pack("=I", udp.getsockname()[3])
            udp.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_JOIN_GROUP, group.packed + interface)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:  # taken over from a process that had joined
            return
        udp.close()
        raise SourceError(
            f"rtp {address}:{port}: cannot join the multicast group: {os.strerror(error.errno or 0)}; "
            f"'ip route get {address}' must name an interface (else 'ip route add {address} dev INTERFACE')"
        ) from error


def _advice(error: int | None, port: int) -> str:
    match error:
        case errno.EADDRNOTAVAIL | errno.EAFNOSUPPORT:
            return "give an address of this machine ('ip address' lists them)"
        case errno.EACCES:
            return "ports below 1024 are root's: choose another, or grant CAP_NET_BIND_SERVICE"
        case errno.EMFILE:
            return "each port takes two files: raise LimitNOFILE in the service, or 'ulimit -n'"
        case errno.ENFILE:
            return "the whole machine has too many: raise it with 'sysctl fs.file-max'"
    return f"choose another port or stop the program that uses it ('ss -lupn sport = :{port}' names it)"
