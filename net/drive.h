/* The stack driven from outside, as a conformance suite drives one: sockets by the calls and errnos of the man pages,
 * packets in at given times, packets out with the time at which they left, and a clock that only moves when it is told
 * to. No thread, no wall clock, no I/O; the same calls in the same order give the same packets.
 *
 * Time is in ns and starts at 0. Each call is one turn of the stack: what it makes necessary has left when it returns,
 * and what needs time leaves when drive_advance() (or the time of drive_inject()) gets there. No call blocks: where one
 * of a blocking socket would wait, it answers -EAGAIN or -EINPROGRESS.
 *
 * Frames are bare IP packets, as on a TUN device: there are no neighbours to ask, and all addresses are on the link.
 * With DRIVE_ETHERNET they are Ethernet frames, and ARP and neighbour discovery are the caller's to answer.
 *
 * All calls return 0, a count, a descriptor, or -errno. One thread at a time may use a drive; any number of drives may
 * exist. Ownership: a drive owns its stack, its link and its sockets; drive_free() ends them all without a word.
 *
 * C programs include <stddef.h>, <stdint.h>, <sys/socket.h>, "net/api.h" and this, or the libos-stack.h that `make
 * libos-stack` puts all of them into. docs/driving.md shows how it is used. */

struct drive;
struct stack;
struct stack_config;
struct sockaddr;

#define DRIVE_ETHERNET 1

/* What drive_new() uses when config is NULL: to be changed and handed to it. */
void drive_defaults(struct stack_config *out);
int drive_new(struct drive **out, const struct stack_config *config, unsigned mtu, unsigned flags);
void drive_free(struct drive *d);
int drive_address(struct drive *d, const char *interface); /* "10.0.0.2/24", "fd00::2/64" */
/* gateway NULL: on the link. Without DRIVE_ETHERNET everything is on the link already. */
int drive_route(struct drive *d, const char *network, const char *gateway);

/* --- time and packets --- */

uint64_t drive_now(struct drive *d);
uint64_t drive_due(struct drive *d); /* when the stack wants to run next, or UINT64_MAX */
/* To that time, stopping wherever the stack has something to do. -EINVAL: it is in the past. */
int drive_advance(struct drive *d, uint64_t to);
/* The clock moves to `at`; then a packet arrives. -EINVAL: in the past, or neither IPv4 nor IPv6. */
int drive_inject(struct drive *d, uint64_t at, const uint8_t *packet, size_t len);
/* The next packet that left, and when: its length, 0 for none; -EMSGSIZE (and it is gone) if cap is less. */
int64_t drive_take(struct drive *d, uint64_t *at, uint8_t *packet, size_t cap);

/* --- sockets, as in section 2 of the manual: AF_INET and AF_INET6, SOCK_STREAM and SOCK_DGRAM --- */

/* The lowest descriptor that is free, from 3 on. SOCK_NONBLOCK and SOCK_CLOEXEC change nothing. */
int drive_socket(struct drive *d, int domain, int type, int protocol);
int drive_bind(struct drive *d, int fd, const struct sockaddr *addr, unsigned len);
int drive_listen(struct drive *d, int fd, int backlog);
int drive_accept(struct drive *d, int fd, struct sockaddr *addr, unsigned *len); /* addr may be NULL */
int drive_connect(struct drive *d, int fd, const struct sockaddr *addr, unsigned len);
/* flags: MSG_DONTWAIT and MSG_NOSIGNAL change nothing; MSG_OOB sends urgent data, which is received in line, announced
 * by POLLPRI (sock_urgent() in net/api.h says how much is left); others are -EOPNOTSUPP. addr may be NULL. */
int64_t drive_sendto(struct drive *d, int fd, const void *data, size_t len, int flags, const struct sockaddr *addr,
                     unsigned addrlen);
int64_t drive_recvfrom(struct drive *d, int fd, void *data, size_t len, int flags, struct sockaddr *addr,
                       unsigned *addrlen);
int drive_shutdown(struct drive *d, int fd, int how);
int drive_close(struct drive *d, int fd);
int drive_getsockname(struct drive *d, int fd, struct sockaddr *addr, unsigned *len);
int drive_getpeername(struct drive *d, int fd, struct sockaddr *addr, unsigned *len);
/* By Linux's numbers. TCP_INFO is a struct tcp_info of <linux/tcp.h>. */
int drive_getsockopt(struct drive *d, int fd, int level, int name, void *value, unsigned *len);
int drive_setsockopt(struct drive *d, int fd, int level, int name, const void *value, unsigned len);
int drive_poll(struct drive *d, int fd); /* POLL* that hold now */

/* --- what else there is to see, by net/api.h: counters, memory, the table of sockets. Its clock is the drive's. --- */

struct stack *drive_stack(struct drive *d);
int64_t drive_id(struct drive *d, int fd); /* the socket's id there */
