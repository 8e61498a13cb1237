"""A web server on a network of its own, inside an asyncio program that goes on as before.

    python examples/attach.py [PORT]
    curl http://127.0.0.1:8080/

The loop is asyncio's, and its own sockets are the kernel's. The machine lives in the same loop, with a TCP/IP of its
own, and the host's PORT leads to its port 80. aiohttp notices nothing: its server is a protocol factory, and
``machine.create_server`` takes it as ``loop.create_server`` would. The page shows every connection of that stack, with
its round-trip time and congestion window.
"""

import asyncio
import signal
import sys

from aiohttp import web

import libos


async def main(port: int) -> None:
    with libos.Machine(libos.configure(publish=f"{port}:80")) as machine:

        async def connections(request: web.Request) -> web.Response:
            lines = [
                f"{info.state:12} {info.local[0]}:{info.local[1]} <- {info.remote[0]}:{info.remote[1]}"
                f"  rtt {info.srtt / 1e6:.3f} ms  cwnd {info.cwnd}  {info.congestion}"
                for info in machine.net.sockets()
                if info.state == "ESTABLISHED"
            ]
            return web.Response(text="\n".join(lines) + "\n")

        app = web.Application()
        app.router.add_get("/", connections)
        runner = web.AppRunner(app)
        await runner.setup()
        async with machine.attach():
            assert machine.gateway is not None
            server = await machine.create_server(runner.server, None, 80)
            async with server:
                print(f"http://127.0.0.1:{machine.gateway.published[0][1]}/", flush=True)
                stop = asyncio.Event()
                for signum in (signal.SIGINT, signal.SIGTERM):
                    asyncio.get_running_loop().add_signal_handler(signum, stop.set)
                await stop.wait()
                server.close()
                await runner.cleanup()
        counts = machine.statistics()
        print(f"{counts['connections_in']} connections, {counts['packets_in']} packets in, {counts['packets_out']} out")


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 8080))
