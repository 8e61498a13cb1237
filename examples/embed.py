"""Two hosts on one wire, in one process and one event loop: libos's parts by hand.

    python examples/embed.py

No socket of the kernel is involved: each host is a TCP/IP stack of its own, and the wire between them is two queues in
memory, here with one frame in a hundred lost. What a Machine does for one host is spelled out here for two.
"""

import asyncio
from contextlib import ExitStack

from libos.clock import MonotonicClock
from libos.net.link.impairment import Impairment
from libos.net.names.resolver import Resolver
from libos.net.network import StackNetwork
from libos.net.stack import Link, Stack
from libos.rand import Rng
from libos.sched.loop import Loop
from libos.sched.reactor import Reactor


def new_host(reactor: Reactor, rng: Rng, link: Link, address: str, undo: ExitStack) -> StackNetwork:
    """A stack with one interface, driven by ``reactor``, and asyncio's network methods over it."""
    stack = Stack(rng.fork(), reactor.now())
    undo.callback(stack.close)
    stack.add_address(stack.add_link(link), address)
    network = StackNetwork(stack, reactor, resolver=Resolver(rng.fork(), hosts={"server": ["10.0.0.2"]}))
    undo.callback(network.close)
    return network


async def talk(client: StackNetwork, server: StackNetwork) -> int:
    loop = asyncio.get_running_loop()
    received = loop.create_future()

    class Count(asyncio.Protocol):
        total = 0

        def data_received(self, data: bytes) -> None:
            self.total += len(data)

        def eof_received(self) -> None:
            received.set_result(self.total)

    listener = await server.create_server(loop, Count, None, 80)
    transport, _ = await client.create_connection(loop, asyncio.Protocol, "server", 80)
    transport.write(bytes(1 << 18))
    transport.write_eof()
    total: int = await received
    listener.close()
    return total


def main() -> None:
    rng = Rng(7)
    with ExitStack() as undo:
        reactor = Reactor(clock=MonotonicClock())
        undo.callback(reactor.close)
        near, far = Link.pair(rng, mtu=1500, caps=Link.CSUM)  # packets of 1500 bytes, not segments of 64 KiB
        bad = Impairment(loss=0.01, delay=5_000_000, seed=7)
        client = new_host(reactor, rng, near.with_impairment(bad, rng), "10.0.0.1/24", undo)
        server = new_host(reactor, rng, far, "10.0.0.2/24", undo)
        with asyncio.Runner(loop_factory=lambda: Loop(reactor)) as runner:
            print(f"{runner.run(talk(client, server)):,} bytes came through")
        print(f"{client.stack.counters()['TcpRetransSegs']} segments were sent again")


if __name__ == "__main__":
    main()
