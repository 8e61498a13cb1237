"""The peer of a TCP conversation: its segments arrive, and it says which must leave."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from scapy.layers.inet import TCP
from scapy.packet import Packet

from .packets import option, payload_of, relative

if TYPE_CHECKING:
    from .harness import Harness


class Peer:
    """The other end of one TCP conversation. Numbers are relative to the SYN of each side.

    ``rx`` fills in what it is not told: the next sequence number, an acknowledgement of all that was seen, and, once
    ``ts`` was on a SYN, timestamps.
    """

    def __init__(
        self, harness: Harness, port: int, to: int, *, isn: int = 5_000_000, address: str | None = None
    ) -> None:
        self.h = harness
        self.port, self.to, self.isn = port, to, isn
        self.address = address or harness.their
        self.iss: int | None = None  # of the stack, once seen
        self.next, self.seen = 0, 0
        self.win = 65535
        self.ts: int | None = None
        self.ts_echo = 0

    def segment(
        self,
        flags: str,
        *,
        seq: int | None = None,
        ack: int | None = None,
        data: bytes = b"",
        win: int | None = None,
        mss: int | None = None,
        ws: int | None = None,
        ts: int | tuple[int, int] | None = None,
        sack: bool | list[tuple[int, int]] | None = None,
        options: list[Any] | None = None,
        tos: int = 0,
    ) -> Packet:
        """The segment, without Ethernet. ``ts``: our value, or both. ``sack``: True in a SYN; else the blocks.
        ``tos``: or the traffic class."""
        seq = self.next if seq is None else seq
        ack = self.seen if ack is None else ack
        self.win = self.win if win is None else win
        listed = list(options or [])
        if mss is not None:
            listed.append(("MSS", mss))
        if ws is not None:
            listed.append(("WScale", ws))
        if ts is not None:
            self.ts = ts[0] if isinstance(ts, tuple) else ts
        if isinstance(ts, tuple):
            listed.append(("Timestamp", ts))
        elif self.ts is not None:
            listed.append(("Timestamp", (self.ts, self.ts_echo if "A" in flags else 0)))
        if sack is True:
            listed.append(("SAckOK", b""))
        elif sack:
            listed.append(("SAck", tuple(((self.iss or 0) + edge) % 2**32 for block in sack for edge in block)))
        tcp = TCP(
            sport=self.port,
            dport=self.to,
            seq=(self.isn + seq) % 2**32,
            ack=((self.iss or 0) + ack) % 2**32 if "A" in flags else 0,
            flags=flags,
            window=self.win,
            options=listed,
        )
        self.next = max(self.next, seq + len(data) + ("S" in flags) + ("F" in flags))
        return self.h.ip(src=self.address, **{"tos" if self.h.family == 4 else "tc": tos}) / tcp / data

    def rx(self, flags: str, **fields: Any) -> None:
        """A segment arrives."""
        self.h.inject(self.segment(flags, **fields))
        self.h._run()

    def expect(
        self,
        flags: str,
        *,
        seq: int | None = None,
        ack: int | None = None,
        data: bytes | None = None,
        length: int | None = None,
        win: int | None = None,
        mss: int | None = None,
        ws: int | None = None,
        ts: tuple[int | None, int] | None = None,
        sack: list[tuple[int, int]] | None = None,
        options: list[str] | None = None,
        gso: int = 0,
    ) -> TCP:
        """This segment left, now. ``options``: the names of all that it carries."""
        h = self.h
        h._run()
        assert h.sent, f"at {h._clock()} no {flags} left"
        sent_gso = h.sent[0].gso
        packet = h.expect_packet()
        assert TCP in packet, f"not TCP: {packet.summary()}"
        tcp, ip = packet[TCP], packet.payload
        assert (ip.dst, tcp.sport, tcp.dport) == (self.address, self.to, self.port), packet.summary()
        if "S" in str(tcp.flags):
            self.iss = tcp.seq
        payload = payload_of(tcp)
        got = {
            "flags": str(tcp.flags),
            "seq": relative(tcp.seq, self.iss or 0),
            "ack": relative(tcp.ack, self.isn) if "A" in str(tcp.flags) else None,
            "data": payload,
            "length": len(payload),
            "win": tcp.window,
            "mss": option(tcp, "MSS"),
            "ws": option(tcp, "WScale"),
            "ts": option(tcp, "Timestamp"),
            "sack": self._blocks(tcp),
            "options": [name for name, _ in tcp.options if name != "NOP"],
            "gso": sent_gso,
        }
        wanted = {
            "flags": flags,
            "seq": seq,
            "ack": ack,
            "data": data,
            "length": length,
            "win": win,
            "mss": mss,
            "ws": ws,
            "sack": sack,
            "options": options,
            "gso": gso,
        }
        wrong = {k: (v, got[k]) for k, v in wanted.items() if v is not None and got[k] != v}
        assert not wrong, f"at {h._clock()}, wanted and got: {wrong} in {tcp.summary()}"
        if ts is not None:
            assert got["ts"] is not None, "no timestamps"
            assert ts[0] in (None, got["ts"][0]), f"TSval: wanted {ts[0]}, got {got['ts'][0]}"
            assert ts[1] == got["ts"][1], f"TSecr: wanted {ts[1]}, got {got['ts'][1]}"
        if got["ts"]:
            self.ts_echo = got["ts"][0]
        end = got["seq"] + len(payload) + ("S" in got["flags"]) + ("F" in got["flags"])
        if "R" not in got["flags"]:
            self.seen = max(self.seen, end)
        return tcp

    def expect_nothing(self) -> None:
        self.h.expect_nothing()

    def _blocks(self, tcp: TCP) -> list[tuple[int, int]]:
        """The SACK blocks of a segment that left, relative to our SYN."""
        edges = [relative(edge, self.isn) for edge in option(tcp, "SAck") or ()]
        return list(zip(edges[::2], edges[1::2], strict=True))
