"""``struct tcp_info`` of ``<linux/tcp.h>``, taken apart: what ``getsockopt(IPPROTO_TCP, TCP_INFO)`` fills in."""

from __future__ import annotations

import struct

__all__ = ["unpack_tcp_info"]

# In the order of the header, each run of members of one width; the kernel appends, and never moves.
_RUNS = (
    ("B", "state ca_state retransmits probes backoff options wscale flags"),
    (
        "I",
        "rto ato snd_mss rcv_mss unacked sacked lost retrans fackets last_data_sent last_ack_sent last_data_recv"
        " last_ack_recv pmtu rcv_ssthresh rtt rttvar snd_ssthresh snd_cwnd advmss reordering rcv_rtt rcv_space"
        " total_retrans",
    ),
    ("Q", "pacing_rate max_pacing_rate bytes_acked bytes_received"),
    ("I", "segs_out segs_in notsent_bytes min_rtt data_segs_in data_segs_out"),
    ("Q", "delivery_rate busy_time rwnd_limited sndbuf_limited"),
    ("I", "delivered delivered_ce"),
    ("Q", "bytes_sent bytes_retrans"),
    ("I", "dsack_dups reord_seen rcv_ooopack snd_wnd rcv_wnd rehash"),
    ("H", "total_rto total_rto_recoveries"),
    ("I", "total_rto_time"),
)


def unpack_tcp_info(raw: bytes) -> dict[str, int]:
    """The members by their names (``tcpi_rtt`` in us, ``tcpi_snd_cwnd`` in segments …), as far as ``raw`` reaches.

    The bit fields stand under their own names: ``tcpi_snd_wscale``, ``tcpi_rcv_wscale``,
    ``tcpi_delivery_rate_app_limited``, ``tcpi_fastopen_client_fail``.
    """
    info: dict[str, int] = {}
    offset = 0
    for code, names in _RUNS:
        size = struct.calcsize(code)
        for name in names.split():
            if offset + size <= len(raw):
                info[f"tcpi_{name}"] = struct.unpack_from(f"={code}", raw, offset)[0]
            offset += size
    if "tcpi_flags" in info:
        scales, flags = info.pop("tcpi_wscale"), info.pop("tcpi_flags")
        info |= {"tcpi_snd_wscale": scales & 15, "tcpi_rcv_wscale": scales >> 4}
        info |= {"tcpi_delivery_rate_app_limited": flags & 1, "tcpi_fastopen_client_fail": flags >> 1 & 3}
    return info
