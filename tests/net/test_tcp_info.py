"""TCP_INFO: the same transfer over the kernel's loopback and over two of our stacks, read by the same parser."""

from __future__ import annotations

import asyncio
import socket

import pytest

from libos.net.tcp_info import TCP_INFO_SIZE, TcpInfo, tcp_info

SIZE = 200_000
ANSWER = 1000


def read(sock) -> TcpInfo:
    return tcp_info(sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, TCP_INFO_SIZE))


async def transfer(loop, make_server, make_client, address):
    """200,000 bytes there, 1,000 back; what both ends and the listener say of it."""
    listener, client = make_server(), make_client()
    for sock in (listener, client):
        sock.setblocking(False)
    listener.bind((address, 0))
    listener.listen(7)
    accepting = asyncio.ensure_future(loop.sock_accept(listener))
    await loop.sock_connect(client, listener.getsockname())
    server, _ = await accepting
    sending = asyncio.ensure_future(loop.sock_sendall(client, bytes(SIZE)))
    received = 0
    while received < SIZE:
        received += len(await loop.sock_recv(server, 1 << 16))
    await sending
    await loop.sock_sendall(server, bytes(ANSWER))
    received = 0
    while received < ANSWER:
        received += len(await loop.sock_recv(client, 1 << 16))
    for sock in (client, server):  # until the last ACK is there
        while read(sock).unacked:  # noqa: ASYNC110
            await asyncio.sleep(0)
    told = read(client), read(server), read(listener)
    client.close()
    server.close()
    listener.close()
    return told


def test_the_kernel():
    async def main():
        return await transfer(asyncio.get_running_loop(), socket.socket, socket.socket, "127.0.0.1")

    look_over(*asyncio.run(main()))


def test_our_stack(wire):
    look_over(*wire.run(transfer(wire.loop, wire.server.socket, wire.client.socket, "10.0.0.2")))


def look_over(client, server, listener):
    assert (client.state, server.state, listener.state) == (1, 1, 10)
    assert client.timestamps
    assert client.sack
    assert client.wscale
    assert (client.ca_state, client.retransmits, client.backoff, client.probes) == (0, 0, 0, 0)
    assert (client.unacked, client.sacked, client.lost, client.retrans, client.total_retrans) == (0, 0, 0, 0, 0)
    assert client.bytes_acked in (SIZE, SIZE + 1)  # the kernel counts the SYN
    assert server.bytes_received == client.bytes_sent == SIZE
    assert server.bytes_sent == client.bytes_received == ANSWER
    assert (client.bytes_retrans, client.notsent_bytes) == (0, 0)
    assert client.snd_wscale == server.rcv_wscale > 0
    assert server.snd_wscale == client.rcv_wscale
    assert client.data_segs_out >= SIZE / 65536
    assert client.segs_out >= client.data_segs_out >= server.data_segs_in > 0
    assert client.segs_in <= server.segs_out + 1  # the kernel does not count the SYN, ACK
    assert client.data_segs_in <= client.segs_in
    assert 0 < client.min_rtt <= 1_000_000
    assert 0 < client.rtt <= 1_000_000
    assert 100_000 <= client.rto <= 1_500_000
    assert client.snd_cwnd >= 2
    assert 500 < client.snd_mss <= client.advmss <= client.pmtu <= 65535 + 20
    assert client.snd_wnd > 0
    assert client.last_data_sent <= 5000
    assert client.last_ack_recv <= 5000
    assert client.snd_ssthresh > 10  # 0x7fffffff: slow start has not met its end
    assert (listener.unacked, listener.sacked) == (0, 7)


def test_shorter_and_longer_ones():
    """What a kernel older or newer than the parser gives"""
    with pytest.raises(ValueError, match="3 bytes"):
        tcp_info(b"abc")
    old = tcp_info(bytes([1, 0, 0, 0, 0, 7, 0x7A, 0b101]) + (200_000).to_bytes(4, "little"))
    assert (old.state, old.snd_wscale, old.rcv_wscale, old.rto) == (1, 10, 7, 200_000)
    assert (old.delivery_rate_app_limited, old.fastopen_client_fail, old.rehash) == (True, 2, 0)
    assert tcp_info(bytes(1000)).state == 0
