"""How a machine gets its addresses from the network: DHCPv4, DHCPv6, and what to do with what they and routers say.

The clients (:mod:`~libos.net.config.dhcp4`, :mod:`~libos.net.config.dhcp6`) are sans-I/O: bytes and time in, bytes and
actions out. :mod:`~libos.net.config.service` gives them sockets and timers of a Stack, driven by the reactor alone.
"""
