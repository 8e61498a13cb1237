"""``TCP_INFO`` read (linux/tcp.h, tcp(7)): of a machine's sockets and of the kernel's alike.

    info = tcp_info(sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 248))

The struct has only ever grown at its end. What an older kernel did not fill in is 0 here, and what a newer one says
beyond is not looked at.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, fields

__all__ = ["TCP_INFO_SIZE", "TcpInfo", "tcp_info"]


@dataclass(frozen=True, slots=True)
class TcpInfo:
    """One connection. Round trips, ``rto``, ``ato`` and the three ``*_time``/``*_limited`` are in us, ``last_*`` in ms;
    ``snd_cwnd``, ``snd_ssthresh``, ``unacked``, ``sacked``, ``lost`` and ``retrans`` in segments; all else in bytes."""

    state: int
    ca_state: int
    retransmits: int
    probes: int
    backoff: int
    options: int
    snd_wscale: int
    rcv_wscale: int
    delivery_rate_app_limited: bool
    fastopen_client_fail: int
    rto: int
    ato: int
    snd_mss: int
    rcv_mss: int
    unacked: int
    sacked: int
    lost: int
    retrans: int
    fackets: int
    last_data_sent: int
    last_ack_sent: int
    last_data_recv: int
    last_ack_recv: int
    pmtu: int
    rcv_ssthresh: int
    rtt: int
    rttvar: int
    snd_ssthresh: int
    snd_cwnd: int
    advmss: int
    reordering: int
    rcv_rtt: int
    rcv_space: int
    total_retrans: int
    pacing_rate: int
    max_pacing_rate: int
    bytes_acked: int
    bytes_received: int
    segs_out: int
    segs_in: int
    notsent_bytes: int
    min_rtt: int
    data_segs_in: int
    data_segs_out: int
    delivery_rate: int
    busy_time: int
    rwnd_limited: int
    sndbuf_limited: int
    delivered: int
    delivered_ce: int
    bytes_sent: int
    bytes_retrans: int
    dsack_dups: int
    reord_seen: int
    rcv_ooopack: int
    snd_wnd: int
    rcv_wnd: int
    rehash: int
    total_rto: int
    total_rto_recoveries: int
    total_rto_time: int

    @property
    def timestamps(self) -> bool:
        return bool(self.options & 1)

    @property
    def sack(self) -> bool:
        return bool(self.options & 2)

    @property
    def wscale(self) -> bool:
        return bool(self.options & 4)

    @property
    def ecn(self) -> bool:
        return bool(self.options & 8)


_HEAD = struct.Struct("8B")
_REST = struct.Struct("=24I4Q6IQ3Q2I2Q6I2HI")
TCP_INFO_SIZE = _HEAD.size + _REST.size
"""Bytes to ask ``getsockopt`` for."""


def tcp_info(raw: bytes) -> TcpInfo:
    """What ``getsockopt(IPPROTO_TCP, TCP_INFO, TCP_INFO_SIZE)`` gave. Raises ``ValueError`` for less than its head."""
    if len(raw) < _HEAD.size:
        raise ValueError(f"TCP_INFO of {len(raw)} bytes, where the shortest is {_HEAD.size}")
    whole = raw[:TCP_INFO_SIZE].ljust(TCP_INFO_SIZE, b"\0")
    *head, scales, flags = _HEAD.unpack_from(whole)
    values = [*head, scales & 15, scales >> 4, bool(flags & 1), flags >> 1 & 3, *_REST.unpack_from(whole, _HEAD.size)]
    return TcpInfo(**{field.name: value for field, value in zip(fields(TcpInfo), values, strict=True)})
