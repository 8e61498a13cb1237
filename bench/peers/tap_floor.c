/* The floor: a TCP echo on a TAP device that keeps no state at all and answers every segment from its own header.
 *
 * Measured: what the path itself costs (read a frame, write a frame, and all that the kernel does on the client's
 * behalf inside that write), below which no TCP/IP in user space that lives on this TAP can come. It does for a segment
 * the least that a client's kernel accepts: it swaps the addresses and writes the same frame back. IFF_VNET_HDR with
 * checksum and segmentation offload in both directions, so a message of 16 KiB is one frame of 16 KiB each way.
 *
 * The trick that needs no state: the SYN-ACK takes the client's own initial sequence number for its own. From then on
 * each echoed byte has in the answer the very sequence number that it had in the question, so several segments in
 * flight and retransmissions come out right too, at every size. What holds only here: no loss in the device (nothing is
 * ever retransmitted by the floor), no flow control (the client asks for no more than 64 KiB at once), no TCP options
 * (no timestamps, no window scaling), IPv4 without options.
 *
 * Every ARP question is answered, so that it is whoever the client looks for. Blocking, or spinning on the
 * descriptor.
 *
 * `sink` and `source` are the floors of one stream: the one acknowledges what comes and drops it, the other sends
 * frames of 44 full segments as far as the client's window goes, all of them empty of meaning. These two offer window
 * scaling, without which a stream is limited by 64 KiB a round trip; source remembers how far it has sent. */

#include "peer.h"
#include <fcntl.h>
#include <linux/if.h>
#include <linux/if_ether.h>
#include <linux/if_tun.h>
#include <linux/virtio_net.h>
#include <sys/ioctl.h>

#define VNET (sizeof(struct virtio_net_hdr))

/* Offsets in a frame as read: virtio_net_hdr, Ethernet, then ARP or IPv4 of 20 bytes and TCP. */
enum {
    AT_ETH = VNET,
    AT_TYPE = AT_ETH + 12,
    AT_ARP = AT_ETH + 14,
    AT_ARP_OPERATION = AT_ARP + 6,
    AT_ARP_SENDER = AT_ARP + 8, /* 6 + 4 bytes */
    AT_ARP_TARGET = AT_ARP + 18,
    AT_IP = AT_ETH + 14,
    AT_IP_LENGTH = AT_IP + 2,
    AT_IP_PROTOCOL = AT_IP + 9,
    AT_IP_CHECKSUM = AT_IP + 10,
    AT_IP_SOURCE = AT_IP + 12,
    AT_IP_DESTINATION = AT_IP + 16,
    AT_TCP = AT_IP + 20,
    AT_TCP_SEQ = AT_TCP + 4,
    AT_TCP_ACK = AT_TCP + 8,
    AT_TCP_OFFSET = AT_TCP + 12,
    AT_TCP_FLAGS = AT_TCP + 13,
    AT_TCP_WINDOW = AT_TCP + 14,
    AT_TCP_CHECKSUM = AT_TCP + 16,
    AT_TCP_OPTIONS = AT_TCP + 20,
};

enum { FIN = 1, SYN = 2, RST = 4, PSH = 8, ACK = 16 };

static const uint8_t MAC[6] = {0x02, 'f', 'l', 'o', 'o', 'r'};

enum role { ECHO, SINK, SOURCE };
enum { MSS = 1460, BURST = 44 * MSS, SCALE = 10 };

static uint8_t frame[VNET + ETH_HLEN + 65536];
static uint8_t burst[VNET + ETH_HLEN + 65536]; /* source: the frame to send, headers from the client's last */
static uint32_t next; /* source: the first sequence number not sent */
static unsigned shift; /* of the client's window */

static unsigned get16(size_t at) { return (unsigned)frame[at] << 8 | frame[at + 1]; }
static uint32_t get32(size_t at) { return (uint32_t)get16(at) << 16 | get16(at + 2); }

static void put16(size_t at, unsigned v)
{
    frame[at] = (uint8_t)(v >> 8);
    frame[at + 1] = (uint8_t)v;
}

static void put32(size_t at, uint32_t v)
{
    put16(at, v >> 16);
    put16(at + 2, v & 0xffff);
}

static void swap(size_t a, size_t b, size_t n)
{
    uint8_t t[6];
    memcpy(t, frame + a, n);
    memcpy(frame + a, frame + b, n);
    memcpy(frame + b, t, n);
}

static unsigned fold(uint32_t sum)
{
    sum = (sum & 0xffff) + (sum >> 16);
    return (sum & 0xffff) + (sum >> 16);
}

static void send_frame(int fd, size_t len)
{
    if (write(fd, frame, len) != (ssize_t)len)
        die_errno("write to the TAP device");
}

static void answer_arp(int fd, size_t len)
{
    static const uint8_t any[4];
    /* Questions only; and not the probe for an address of one's own. */
    if (len < AT_ARP + 28 || get16(AT_ARP_OPERATION) != 1 || !memcmp(frame + AT_ARP_SENDER + 6, any, 4) ||
        !memcmp(frame + AT_ARP_SENDER + 6, frame + AT_ARP_TARGET + 6, 4))
        return;
    memset(frame, 0, VNET);
    memcpy(frame + AT_ETH, frame + AT_ETH + 6, 6);
    memcpy(frame + AT_ETH + 6, MAC, 6);
    put16(AT_ARP_OPERATION, 2);
    swap(AT_ARP_SENDER, AT_ARP_TARGET, 6);
    swap(AT_ARP_SENDER + 6, AT_ARP_TARGET + 6, 4);
    memcpy(frame + AT_ARP_SENDER, MAC, 6);
    send_frame(fd, len);
}

/* Addresses swapped and length unchanged, the IPv4 checksum still holds; the TCP checksum is left to the device, which
 * wants the pseudo-header's sum in its place. */
static void answer(int fd, unsigned segment, unsigned flags, uint32_t seq, uint32_t ack)
{
    struct virtio_net_hdr *vnet = (struct virtio_net_hdr *)frame;
    unsigned header = frame[AT_TCP_OFFSET] >> 4 << 2;
    uint32_t sum = 6 + segment;
    swap(AT_ETH, AT_ETH + 6, 6);
    swap(AT_IP_SOURCE, AT_IP_DESTINATION, 4);
    swap(AT_TCP, AT_TCP + 2, 2);
    put32(AT_TCP_SEQ, seq);
    put32(AT_TCP_ACK, ack);
    frame[AT_TCP_FLAGS] = (uint8_t)flags;
    put16(AT_TCP_WINDOW, 0xffff);
    for (size_t at = AT_IP_SOURCE; at < AT_IP_SOURCE + 8; at += 2)
        sum += get16(at);
    put16(AT_TCP_CHECKSUM, fold(sum));
    vnet->flags = VIRTIO_NET_HDR_F_NEEDS_CSUM;
    vnet->csum_start = AT_TCP - AT_ETH;
    vnet->csum_offset = AT_TCP_CHECKSUM - AT_TCP;
    vnet->hdr_len = (uint16_t)(AT_TCP - AT_ETH + header); /* gso_type and gso_size stand as they came */
    send_frame(fd, AT_TCP + segment);
}

/* The shift in a SYN's window scale option (RFC 7323 2.2); 0: there is none. */
static unsigned window_shift(size_t end)
{
    for (size_t at = AT_TCP_OPTIONS; at + 2 < end && frame[at] != 0; at += frame[at] == 1 || !frame[at + 1] ? 1 : frame[at + 1])
        if (frame[at] == 3)
            return frame[at + 2];
    return 0;
}

/* The client's SYN, its options replaced by a maximum segment size, and for a stream a window scale. */
static void answer_syn(int fd, uint32_t seq, enum role role)
{
    uint32_t sum = 0;
    unsigned header = role == ECHO ? 24 : 28;
    shift = window_shift(AT_TCP + (frame[AT_TCP_OFFSET] >> 4 << 2));
    next = seq + 1;
    memset(frame, 0, VNET);
    put16(AT_IP_LENGTH, 20 + header);
    put16(AT_IP_CHECKSUM, 0);
    for (size_t at = AT_IP; at < AT_TCP; at += 2)
        sum += get16(at);
    put16(AT_IP_CHECKSUM, ~fold(sum) & 0xffff);
    frame[AT_TCP_OFFSET] = (uint8_t)(header / 4 << 4);
    put32(AT_TCP_OPTIONS, 2u << 24 | 4u << 16 | MSS);
    put32(AT_TCP_OPTIONS + 4, 1u << 24 | 3u << 16 | 3u << 8 | SCALE);
    answer(fd, header, SYN | ACK, seq, seq + 1);
}

/* What came is acknowledged by its own header alone. */
static void acknowledge(int fd, uint32_t upto)
{
    uint32_t seq = get32(AT_TCP_ACK), sum = 0;
    memset(frame, 0, VNET);
    frame[AT_TCP_OFFSET] = 20 / 4 << 4;
    put16(AT_IP_LENGTH, 20 + 20);
    put16(AT_IP_CHECKSUM, 0);
    for (size_t at = AT_IP; at < AT_TCP; at += 2)
        sum += get16(at);
    put16(AT_IP_CHECKSUM, ~fold(sum) & 0xffff);
    answer(fd, 20, ACK, seq, upto);
}

/* Full frames, up to the end of the window that the client has just told. */
static void fill_window(int fd)
{
    uint32_t acked = get32(AT_TCP_ACK), window = get16(AT_TCP_WINDOW) << shift, ack = get32(AT_TCP_SEQ);
    struct virtio_net_hdr *vnet = (struct virtio_net_hdr *)frame;
    while (next - acked + BURST <= window) {
        uint32_t sum = 0;
        memcpy(burst, frame, AT_TCP_OPTIONS); /* the client's header, which answer() turns round */
        memset(frame, 0, VNET);
        frame[AT_TCP_OFFSET] = 20 / 4 << 4;
        put16(AT_IP_LENGTH, 20 + 20 + BURST);
        put16(AT_IP_CHECKSUM, 0);
        for (size_t at = AT_IP; at < AT_TCP; at += 2)
            sum += get16(at);
        put16(AT_IP_CHECKSUM, ~fold(sum) & 0xffff);
        vnet->gso_type = VIRTIO_NET_HDR_GSO_TCPV4;
        vnet->gso_size = MSS;
        answer(fd, 20 + BURST, ACK | PSH, next, ack);
        next += BURST;
        memcpy(frame, burst, AT_TCP_OPTIONS);
    }
}

static void segment_in(int fd, size_t len, enum role role)
{
    if (len < AT_TCP_OPTIONS || frame[AT_IP] != 0x45 || frame[AT_IP_PROTOCOL] != IPPROTO_TCP)
        return;
    unsigned header = frame[AT_TCP_OFFSET] >> 4 << 2;
    if (get16(AT_IP_LENGTH) < 20 + header || len < AT_IP + get16(AT_IP_LENGTH))
        return;
    unsigned segment = get16(AT_IP_LENGTH) - 20, flags = frame[AT_TCP_FLAGS];
    uint32_t data = segment - header, seq = get32(AT_TCP_SEQ);
    if (flags & RST)
        return;
    if (flags & SYN)
        answer_syn(fd, seq, role);
    else if (role == SINK && data)
        acknowledge(fd, seq + data);
    else if (role == SOURCE && !(flags & FIN))
        fill_window(fd);
    else if (data || flags & FIN)
        answer(fd, segment, ACK | (data ? PSH : 0) | (flags & FIN), seq, seq + data + !!(flags & FIN));
}

static int open_tap(const char *name)
{
    struct ifreq ifr = {.ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR};
    int fd = open("/dev/net/tun", O_RDWR | O_CLOEXEC);
    if (fd < 0)
        die_errno("/dev/net/tun");
    strncpy(ifr.ifr_name, name, sizeof ifr.ifr_name - 1);
    if (ioctl(fd, TUNSETIFF, &ifr) < 0)
        die_errno("TUNSETIFF");
    if (ioctl(fd, TUNSETOFFLOAD, TUN_F_CSUM | TUN_F_TSO4) < 0)
        die_errno("TUNSETOFFLOAD");
    return fd;
}

int main(int argc, char **argv)
{
    if (argc != 5 || (strcmp(argv[3], "block") && strcmp(argv[3], "spin")))
        die("usage: tap_floor INTERFACE CPU block|spin echo|sink|source");
    enum role role = !strcmp(argv[4], "sink") ? SINK : !strcmp(argv[4], "source") ? SOURCE : ECHO;
    peer_start(atoi(argv[2]));
    int fd = open_tap(argv[1]);
    if (!strcmp(argv[3], "spin") && fcntl(fd, F_SETFL, O_NONBLOCK) < 0)
        die_errno("O_NONBLOCK");
    printf("{\"port\": 7}\n"); /* any would do */
    fflush(stdout);
    for (;;) {
        ssize_t n = read(fd, frame, sizeof frame);
        if (n < 0 && errno == EAGAIN)
            continue;
        if (n < 0)
            die_errno("read from the TAP device");
        if ((size_t)n < AT_ARP)
            continue;
        if (get16(AT_TYPE) == ETH_P_ARP)
            answer_arp(fd, (size_t)n);
        else if (get16(AT_TYPE) == ETH_P_IP)
            segment_in(fd, (size_t)n, role);
    }
}
