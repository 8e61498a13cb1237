/* Bytes on the wire: big-endian accessors, and every field offset that this stack uses, named once.
 *
 * Sources: IEEE 802.3; RFC 826 (ARP), 791 (IPv4), 8200 (IPv6), 792 and 4443 (ICMP), 4861 (NDP), 768 (UDP), 9293 (TCP). */
#ifndef LIBOS_WIRE_H
#define LIBOS_WIRE_H

#include <stdint.h>
#include <string.h>

static inline uint16_t get16(const uint8_t *p) { return (uint16_t)(p[0] << 8 | p[1]); }
static inline uint32_t get32(const uint8_t *p)
{
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}
static inline void put16(uint8_t *p, unsigned v)
{
    p[0] = (uint8_t)(v >> 8);
    p[1] = (uint8_t)v;
}
static inline void put32(uint8_t *p, uint32_t v)
{
    put16(p, v >> 16);
    put16(p + 2, v);
}

#define ETH_DST 0
#define ETH_SRC 6
#define ETH_TYPE 12
#define ETH_HLEN 14
#define ETH_ALEN 6
#define ETHERTYPE_IP4 0x0800
#define ETHERTYPE_ARP 0x0806
#define ETHERTYPE_VLAN 0x8100
#define ETHERTYPE_QINQ 0x88a8
#define VLAN_HLEN 4
#define VLAN_ID_MASK 0xfff
#define ETHERTYPE_IP6 0x86dd

#define ARP_HTYPE 0
#define ARP_PTYPE 2
#define ARP_HLEN 4
#define ARP_PLEN 5
#define ARP_OP 6
#define ARP_SHA 8
#define ARP_SPA 14
#define ARP_THA 18
#define ARP_TPA 24
#define ARP_LEN 28
#define ARP_REQUEST 1
#define ARP_REPLY 2

#define IP4_VIHL 0
#define IP4_TOS 1
#define IP4_TOTAL 2
#define IP4_ID 4
#define IP4_FRAG 6
#define IP4_TTL 8
#define IP4_PROTO 9
#define IP4_CSUM 10
#define IP4_SRC 12
#define IP4_DST 16
#define IP4_HLEN 20
#define IP4_MIN_MTU 576 /* what every host takes (RFC 1122 3.3.2) */
#define IP4_DF 0x4000
#define IP4_MF 0x2000
#define IP4_OPT_EOL 0
#define IP4_OPT_NOP 1
#define IP4_OPT_COPIED 0x80
#define IP4_OFFMASK 0x1fff
#define IP_PAYLOAD_MAX 65535
#define IP_ECN_NOT 0 /* RFC 3168 5: the lower two bits of TOS and traffic class */
#define IP_ECN_CE 3

#define IP6_PLEN 4
#define IP6_NEXT 6
#define IP6_HOPS 7
#define IP6_SRC 8
#define IP6_DST 24
#define IP6_HLEN 40
#define IP6_MIN_MTU 1280
#define IP6_FRAG_NEXT 0
#define IP6_FRAG_OFF 2
#define IP6_FRAG_ID 4
#define IP6_FRAG_HLEN 8
#define IP6_OPT_PAD1 0

#define PROTO_HOPOPTS 0
#define PROTO_ICMP 1
#define PROTO_IGMP 2
#define PROTO_TCP 6
#define PROTO_UDP 17
#define PROTO_ROUTING 43
#define PROTO_FRAGMENT 44
#define PROTO_ICMP6 58
#define PROTO_NONE 59
#define PROTO_DSTOPTS 60

#define ICMP_TYPE 0
#define ICMP_CODE 1
#define ICMP_CSUM 2
#define ICMP_REST 4
#define ICMP_HLEN 8
#define ICMP4_ECHO_REPLY 0
#define ICMP4_UNREACH 3
#define ICMP4_SOURCE_QUENCH 4
#define ICMP4_REDIRECT 5
#define ICMP4_ECHO 8
#define ICMP4_TIME_EXCEEDED 11
#define ICMP4_PARAM 12
#define ICMP4_HOPS 0
#define ICMP4_REASM_TIME 1
#define ICMP4_UNREACH_NET 0
#define ICMP4_UNREACH_HOST 1
#define ICMP4_UNREACH_PROTO 2
#define ICMP4_UNREACH_PORT 3
#define ICMP4_UNREACH_FRAG 4
#define ICMP4_UNREACH_ADMIN 13
#define ICMP6_UNREACH 1
#define ICMP6_TOO_BIG 2
#define ICMP6_TIME_EXCEEDED 3
#define ICMP6_PARAM 4
#define ICMP6_PARAM_FIELD 0
#define ICMP6_PARAM_NEXT 1
#define ICMP6_PARAM_OPTION 2
#define ICMP6_PARAM_CHAIN 3
#define ICMP6_HOPS 0
#define ICMP6_REASM_TIME 1
#define ICMP6_ECHO 128
#define ICMP6_ECHO_REPLY 129
#define ICMP6_MLD_QUERY 130
#define ICMP6_MLD1_REPORT 131
#define ICMP6_MLD1_DONE 132
#define ICMP6_MLD2_REPORT 143
#define ICMP6_RS 133
#define ICMP6_RA 134
#define ICMP6_NS 135
#define ICMP6_NA 136
#define ICMP6_REDIRECT 137
#define ICMP6_UNREACH_NOROUTE 0
#define ICMP6_UNREACH_ADMIN 1
#define ICMP6_UNREACH_SCOPE 2
#define ICMP6_UNREACH_ADDR 3
#define ICMP6_UNREACH_PORT 4

#define ND_TARGET 8
#define ND_OPTIONS 24
#define ND_OPT_SLLA 1
#define ND_OPT_TLLA 2
#define ND_OPT_PREFIX 3
#define ND_OPT_MTU 5
#define ND_OPT_NONCE 14  /* RFC 3971 5.3.2 */
#define ND_OPT_ROUTE 24  /* RFC 4191 2.3 */
#define ND_OPT_RDNSS 25  /* RFC 8106 5.1 */
#define ND_OPT_DNSSL 31  /* RFC 8106 5.2 */
#define RA_HOPS 4
#define RA_FLAGS 5
#define RA_LIFETIME 6
#define RA_REACHABLE 8
#define RA_RETRANS 12
#define RA_OPTIONS 16
#define RA_MANAGED 0x80
#define RA_OTHER 0x40
#define PREFIX_BITS 2 /* within its option */
#define PREFIX_FLAGS 3
#define PREFIX_VALID 4
#define PREFIX_PREFERRED 8
#define PREFIX_ADDR 16
#define PREFIX_ON_LINK 0x80
#define PREFIX_AUTO 0x40
#define ND_NA_ROUTER 0x80000000u
#define ND_NA_SOLICITED 0x40000000u
#define ND_NA_OVERRIDE 0x20000000u

#define UDP_SPORT 0
#define UDP_DPORT 2
#define UDP_LEN 4
#define UDP_CSUM 6
#define UDP_HLEN 8

#define TCP_SPORT 0
#define TCP_DPORT 2
#define TCP_SEQ 4
#define TCP_ACK 8
#define TCP_OFF 12
#define TCP_FLAGS 13
#define TCP_WIN 14
#define TCP_CSUM 16
#define TCP_URG 18
#define TCP_HLEN 20
#define TH_FIN 0x01
#define TH_SYN 0x02
#define TH_RST 0x04
#define TH_PSH 0x08
#define TH_ACK 0x10
#define TH_URG 0x20
#define TH_ECE 0x40
#define TH_CWR 0x80
#define TCPOPT_EOL 0
#define TCPOPT_NOP 1
#define TCPOPT_MSS 2
#define TCPOPT_WSCALE 3
#define TCPOPT_SACK_OK 4
#define TCPOPT_SACK 5
#define TCPOPT_TS 8
#define TCPOPT_FASTOPEN 34

#endif
