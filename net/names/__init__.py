"""Names to addresses and back: the hosts table, then DNS over the machine's own UDP and TCP.

    errors.py     gaierror with getaddrinfo's codes          servers.py   name servers, the ones that fail last
    hosts.py      the hosts table, localhost                 message.py   DNS messages (dnspython)
    services.py   services by name                           query.py     one question: what to ask whom next; no I/O
    order.py      RFC 6724: which address to try first       cache.py     answers for as long as they hold
    addrinfo.py   getaddrinfo(3)                             resolver.py  all of it, with sockets
    nameinfo.py   getnameinfo(3)

The host's resolver, its files and its sockets are never asked. Time is given with each call, randomness at birth.
"""

assert __name__ == "libos.net.names", "import it as libos.net.names"
