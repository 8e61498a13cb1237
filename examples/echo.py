"""TCP and UDP echo with plain asyncio protocols.

libos run --publish 7007:7 --publish 7007:7/udp examples/echo.py 7
printf hello | nc -q1 127.0.0.1 7007
"""

import asyncio
import sys


class TcpEcho(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.transport.write(data)

    # A peer that sends and does not read must not fill our memory.
    def pause_writing(self) -> None:
        self.transport.pause_reading()

    def resume_writing(self) -> None:
        self.transport.resume_reading()


class UdpEcho(asyncio.DatagramProtocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.DatagramTransport)
        self.transport = transport

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self.transport.sendto(data, addr)


async def main(port: int) -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(TcpEcho, None, port)
    await loop.create_datagram_endpoint(UdpEcho, ("::", port))  # IPv4 too (ipv6(7), IPV6_V6ONLY)
    async with server:
        print(f"listening on port {port}, TCP and UDP", flush=True)
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 7))
