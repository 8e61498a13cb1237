"""Layer 2: TCP/IP.

Owns packet buffers, Ethernet to TCP (in C), links, sockets, transports, name resolution and the user-mode gateway. May
import ``libos.sched`` and the base modules; never ``blk`` or ``vfs``.
"""

assert __name__ == "libos.net", "import it as libos.net"
