/* packetdrill's plug-in: its scripts run against this stack, in virtual time.
 *
 * packetdrill (https://github.com/google/packetdrill) can test a stack that lives in a shared object: it loads it, and asks
 * packetdrill_interface_init() for the functions through which it makes calls, moves packets and reads the time. Its
 * packetdrill.h says what they look like; here each is a call of drive.h.
 *
 *   make libos-stack
 *   cc -shared -fPIC -Ibuild/libos-stack -I$PACKETDRILL examples/packetdrill.c build/libos-stack/libos-stack.a -ldl \
 *       -o libos-packetdrill.so
 *   $PACKETDRILL/packetdrill --so_filename=./libos-packetdrill.so --local_ip=192.168.0.1 script.pkt
 *
 * --so_flags gives addresses other than those that packetdrill's scripts have by default, separated by commas.
 *
 * The clock goes on when packetdrill sleeps, when it waits for a packet, and by a microsecond whenever it looks, for it
 * looks again and again until it is time. A packet that never comes is one of length 0, which ends the script. */
#include <errno.h>
#include <fcntl.h>
#include <linux/sockios.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>

#include "packetdrill.h"

#include "libos-stack.h"

#define ADDRESSES "192.168.0.1/16,fd3d:0a0b:17d6::1/48"
#define MICROSECOND 1000ull

/* As the C library has it: -1, and errno says why. */
static int64_t said(int64_t rc)
{
    if (rc >= 0)
        return rc;
    errno = (int)-rc;
    return -1;
}

static void on_free(void *d) { drive_free(d); }

/* --- calls --- */

static int on_socket(void *d, int domain, int type, int protocol)
{
    return (int)said(drive_socket(d, domain, type, protocol));
}

static int on_bind(void *d, int fd, const struct sockaddr *addr, socklen_t len)
{
    return (int)said(drive_bind(d, fd, addr, len));
}

static int on_listen(void *d, int fd, int backlog) { return (int)said(drive_listen(d, fd, backlog)); }

static int on_accept(void *d, int fd, struct sockaddr *addr, socklen_t *len)
{
    return (int)said(drive_accept(d, fd, addr, len));
}

static int on_connect(void *d, int fd, const struct sockaddr *addr, socklen_t len)
{
    return (int)said(drive_connect(d, fd, addr, len));
}

static ssize_t on_read(void *d, int fd, void *buf, size_t n) { return said(drive_recvfrom(d, fd, buf, n, 0, NULL, NULL)); }

static ssize_t on_recv(void *d, int fd, void *buf, size_t n, int flags)
{
    return said(drive_recvfrom(d, fd, buf, n, flags, NULL, NULL));
}

static ssize_t on_recvfrom(void *d, int fd, void *buf, size_t n, int flags, struct sockaddr *addr, socklen_t *len)
{
    return said(drive_recvfrom(d, fd, buf, n, flags, addr, len));
}

static ssize_t on_write(void *d, int fd, const void *buf, size_t n)
{
    return said(drive_sendto(d, fd, buf, n, 0, NULL, 0));
}

static ssize_t on_send(void *d, int fd, const void *buf, size_t n, int flags)
{
    return said(drive_sendto(d, fd, buf, n, flags, NULL, 0));
}

static ssize_t on_sendto(void *d, int fd, const void *buf, size_t n, int flags, const struct sockaddr *addr, socklen_t len)
{
    return said(drive_sendto(d, fd, buf, n, flags, addr, len));
}

/* Pieces that are sent as one. */
static ssize_t send_pieces(void *d, int fd, const struct iovec *iov, size_t count, int flags, const void *addr,
                           socklen_t addrlen)
{
    size_t n = 0;
    for (size_t i = 0; i < count; i++)
        n += iov[i].iov_len;
    char *all = malloc(n ? n : 1), *at = all;
    for (size_t i = 0; all && i < count; i++) {
        memcpy(at, iov[i].iov_base, iov[i].iov_len);
        at += iov[i].iov_len;
    }
    ssize_t rc = said(all ? drive_sendto(d, fd, all, n, flags, addr, addrlen) : -ENOMEM);
    free(all);
    return rc;
}

static ssize_t on_writev(void *d, int fd, const struct iovec *iov, int count)
{
    return send_pieces(d, fd, iov, (size_t)count, 0, NULL, 0);
}

static ssize_t on_sendmsg(void *d, int fd, const struct msghdr *msg, int flags)
{
    return send_pieces(d, fd, msg->msg_iov, msg->msg_iovlen, flags, msg->msg_name, msg->msg_namelen);
}

static ssize_t on_readv(void *d, int fd, const struct iovec *iov, int count)
{
    ssize_t done = 0;
    for (int i = 0; i < count; i++) {
        int64_t n = drive_recvfrom(d, fd, iov[i].iov_base, iov[i].iov_len, 0, NULL, NULL);
        if (n < 0)
            return done ? done : said(n);
        done += n;
        if ((size_t)n < iov[i].iov_len)
            break;
    }
    return done;
}

static int on_fcntl(void *d, int fd, int cmd, ...)
{
    if (drive_id(d, fd) < 0)
        return (int)said(-EBADF);
    return cmd == F_GETFL ? O_RDWR | O_NONBLOCK : 0; /* it never blocks, whatever is set */
}

static int on_ioctl(void *d, int fd, unsigned long request, ...)
{
    uint64_t unread, unsent, unacked;
    va_list arguments;
    va_start(arguments, request);
    int *out = va_arg(arguments, int *), rc = sock_queues(drive_stack(d), drive_id(d, fd), &unread, &unsent, &unacked);
    va_end(arguments);
    if (rc < 0 || (request != SIOCINQ && request != SIOCOUTQ && request != SIOCOUTQNSD))
        return (int)said(rc < 0 ? rc : -ENOTTY);
    *out = (int)(request == SIOCINQ ? unread : request == SIOCOUTQNSD ? unsent : unsent + unacked);
    return 0;
}

static int on_close(void *d, int fd) { return (int)said(drive_close(d, fd)); }

static int on_shutdown(void *d, int fd, int how) { return (int)said(drive_shutdown(d, fd, how)); }

static int on_getsockopt(void *d, int fd, int level, int name, void *value, socklen_t *len)
{
    return (int)said(drive_getsockopt(d, fd, level, name, value, len));
}

static int on_setsockopt(void *d, int fd, int level, int name, const void *value, socklen_t len)
{
    return (int)said(drive_setsockopt(d, fd, level, name, value, len));
}

static int on_poll(void *d, struct pollfd *fds, nfds_t count, int timeout)
{
    int ready = 0;
    if (timeout > 0)
        drive_advance(d, drive_now(d) + (uint64_t)timeout * 1000 * MICROSECOND);
    for (nfds_t i = 0; i < count; i++) {
        int events = drive_poll(d, fds[i].fd);
        fds[i].revents = events < 0 ? POLLNVAL : (short)(events & (fds[i].events | POLLERR | POLLHUP));
        ready += fds[i].revents != 0;
    }
    return ready;
}

/* --- packets and time --- */

static int on_packet_in(void *d, const void *buf, size_t n)
{
    return (int)said(drive_inject(d, drive_now(d), buf, n));
}

static int on_packet_out(void *d, void *buf, size_t *n, long long *time_usecs)
{
    uint64_t at = 0;
    int64_t got;
    while ((got = drive_take(d, &at, buf, *n)) == 0) {
        uint64_t due = drive_due(d);
        if (due == UINT64_MAX)
            break; /* nothing will ever leave */
        drive_advance(d, due > drive_now(d) ? due : drive_now(d));
    }
    *n = got > 0 ? (size_t)got : 0;
    *time_usecs = (long long)(at / MICROSECOND);
    return got < 0 ? (int)said(got) : 0;
}

static int on_usleep(void *d, useconds_t usec)
{
    return (int)said(drive_advance(d, drive_now(d) + usec * MICROSECOND));
}

static int on_gettimeofday(void *d, struct timeval *tv, struct timezone *tz)
{
    (void)tz;
    drive_advance(d, drive_now(d) + MICROSECOND);
    uint64_t usec = drive_now(d) / MICROSECOND;
    tv->tv_sec = (time_t)(usec / 1000000);
    tv->tv_usec = (suseconds_t)(usec % 1000000);
    return 0;
}

void packetdrill_interface_init(const char *flags, struct packetdrill_interface *out)
{
    struct drive *d;
    char addresses[512], *rest = addresses;
    snprintf(addresses, sizeof addresses, "%s", flags && *flags ? flags : ADDRESSES);
    if (drive_new(&d, NULL, 1500, 0) < 0)
        abort();
    for (char *address; (address = strsep(&rest, ","));)
        if (drive_address(d, address) < 0) {
            fprintf(stderr, "--so_flags: %s is no address with its network\n", address);
            exit(2);
        }
    *out = (struct packetdrill_interface){
        .userdata = d,
        .free = on_free,
        .socket = on_socket,
        .bind = on_bind,
        .listen = on_listen,
        .accept = on_accept,
        .connect = on_connect,
        .read = on_read,
        .readv = on_readv,
        .recv = on_recv,
        .recvfrom = on_recvfrom,
        .write = on_write,
        .writev = on_writev,
        .send = on_send,
        .sendto = on_sendto,
        .sendmsg = on_sendmsg,
        .fcntl = on_fcntl,
        .ioctl = on_ioctl,
        .close = on_close,
        .shutdown = on_shutdown,
        .getsockopt = on_getsockopt,
        .setsockopt = on_setsockopt,
        .poll = on_poll,
        .netdev_send = on_packet_in,
        .netdev_receive = on_packet_out,
        .usleep = on_usleep,
        .gettimeofday = on_gettimeofday,
    };
}
