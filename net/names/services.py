"""Services by name, for getaddrinfo(3) and getnameinfo(3): from IANA's registry, those that programs call by name.

The host's /etc/services is not read: a machine is to be the same on every host.
"""

from __future__ import annotations

import socket
from types import MappingProxyType

__all__ = ["port_of", "service_of"]

_TCP, _UDP = socket.IPPROTO_TCP, socket.IPPROTO_UDP

# Name, port, (t)cp and (u)dp; the first name of a port is the one that service_of() gives.
_TABLE = """
    echo 7 tu; discard 9 tu; daytime 13 tu; ftp-data 20 t; ftp 21 t; ssh 22 t; telnet 23 t; smtp 25 t; mail 25 t;
    time 37 tu; whois 43 t; domain 53 tu; tftp 69 u; gopher 70 t; finger 79 t; http 80 t; www 80 t; kerberos 88 tu;
    pop3 110 t; sunrpc 111 tu; nntp 119 t; ntp 123 u; epmap 135 tu; imap2 143 t; imap 143 t; snmp 161 tu;
    snmp-trap 162 tu; bgp 179 t; irc 194 tu; ldap 389 tu; https 443 tu; microsoft-ds 445 tu; kpasswd 464 tu;
    submissions 465 t; isakmp 500 u; syslog 514 u; shell 514 t; syslog 514 t; printer 515 t; dhcpv6-client 546 u;
    dhcpv6-server 547 u; rtsp 554 tu; submission 587 t; ipp 631 t; ldaps 636 tu; domain-s 853 tu; rsync 873 t;
    ftps 990 t; imaps 993 t; pop3s 995 t; socks 1080 t; openvpn 1194 tu; ms-sql-s 1433 t; mqtt 1883 t; nfs 2049 tu;
    mysql 3306 t; stun 3478 tu; postgresql 5432 t; amqps 5671 t; amqp 5672 t; sip 5060 tu; sips 5061 tu;
    xmpp-client 5222 t; xmpp-server 5269 t; mdns 5353 u; x11 6000 t; redis 6379 t; http-alt 8080 t;
    secure-mqtt 8883 t; git 9418 t
"""
_SERVICES = tuple(
    (name, int(port), _TCP if letter == "t" else _UDP)
    for name, port, letters in map(str.split, _TABLE.split(";"))
    for letter in letters
)
_PORTS = MappingProxyType({(name, proto): port for name, port, proto in _SERVICES})
_NAMES = MappingProxyType({(port, proto): name for name, port, proto in reversed(_SERVICES)})


def port_of(name: str, proto: int) -> int | None:
    """The port of a service over IPPROTO_TCP or IPPROTO_UDP, in host order."""
    return _PORTS.get((name, proto))


def service_of(port: int, proto: int) -> str | None:
    return _NAMES.get((port, proto))
