/* packetdrill's plug-in: its scripts run against this stack, in virtual time.
 *
 * packetdrill (https://github.com/google/packetdrill) can test a stack that lives in a shared object: it loads it, and
 * asks packetdrill_interface_init() for the functions through which it makes calls, moves packets and reads the time.
 * Its packetdrill.h says what they look like; here each is a call of drive.h.
 *
 *   make libos-stack
 *   cc -shared -fPIC -Ibuild/libos-stack -I$PACKETDRILL examples/packetdrill.c build/libos-stack/libos-stack.a -ldl \
 *       -o libos-packetdrill.so
 *   $PACKETDRILL/packetdrill --so_filename=./libos-packetdrill.so --local_ip=192.168.0.1 script.pkt
 *
 * packetdrill closes at its end what it believes to be descriptors of its own: so each socket has one, of /dev/null.
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
#define FDS_MAX 1024

struct plug {
    struct drive *d;
    struct {
        int fd;    /* in the drive; by packetdrill's number */
        int flags; /* fcntl(2); nothing blocks, whatever they say */
    } of[FDS_MAX];
};

/* As the C library has it: -1, and errno says why. */
static int64_t said(int64_t rc)
{
    if (rc >= 0)
        return rc;
    errno = (int)-rc;
    return -1;
}

static void on_free(void *p)
{
    drive_free(((struct plug *)p)->d);
    free(p);
}

/* The drive, and its descriptor for one of packetdrill's. */
#define DRIVE (((struct plug *)p)->d)
#define FD(number) ((number) >= 0 && (number) < FDS_MAX ? ((struct plug *)p)->of[number].fd : -1)

/* A descriptor of packetdrill's for one of the drive's, or its -errno. */
static int install(struct plug *p, int in_drive)
{
    int fd = in_drive < 0 ? -1 : open("/dev/null", O_RDWR);
    if (in_drive < 0 || fd < 0 || fd >= FDS_MAX)
        return (int)said(in_drive < 0 ? in_drive : -EMFILE);
    p->of[fd].fd = in_drive;
    p->of[fd].flags = O_RDWR;
    return fd;
}

/* --- calls --- */

static int on_socket(void *p, int domain, int type, int protocol)
{
    return install(p, drive_socket(DRIVE, domain, type, protocol));
}

static int on_bind(void *p, int fd, const struct sockaddr *addr, socklen_t len)
{
    return (int)said(drive_bind(DRIVE, FD(fd), addr, len));
}

static int on_listen(void *p, int fd, int backlog) { return (int)said(drive_listen(DRIVE, FD(fd), backlog)); }

static int on_accept(void *p, int fd, struct sockaddr *addr, socklen_t *len)
{
    return install(p, drive_accept(DRIVE, FD(fd), addr, len));
}

static int on_connect(void *p, int fd, const struct sockaddr *addr, socklen_t len)
{
    return (int)said(drive_connect(DRIVE, FD(fd), addr, len));
}

static ssize_t on_read(void *p, int fd, void *buf, size_t n)
{
    return said(drive_recvfrom(DRIVE, FD(fd), buf, n, 0, NULL, NULL));
}

static ssize_t on_recv(void *p, int fd, void *buf, size_t n, int flags)
{
    return said(drive_recvfrom(DRIVE, FD(fd), buf, n, flags, NULL, NULL));
}

static ssize_t on_recvfrom(void *p, int fd, void *buf, size_t n, int flags, struct sockaddr *addr, socklen_t *len)
{
    return said(drive_recvfrom(DRIVE, FD(fd), buf, n, flags, addr, len));
}

static ssize_t on_write(void *p, int fd, const void *buf, size_t n)
{
    return said(drive_sendto(DRIVE, FD(fd), buf, n, 0, NULL, 0));
}

static ssize_t on_send(void *p, int fd, const void *buf, size_t n, int flags)
{
    return said(drive_sendto(DRIVE, FD(fd), buf, n, flags, NULL, 0));
}

static ssize_t on_sendto(void *p, int fd, const void *buf, size_t n, int flags, const struct sockaddr *addr, socklen_t len)
{
    return said(drive_sendto(DRIVE, FD(fd), buf, n, flags, addr, len));
}

/* Pieces that are sent as one. */
static ssize_t send_pieces(void *p, int fd, const struct iovec *iov, size_t count, int flags, const void *addr,
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
    ssize_t rc = said(all ? drive_sendto(DRIVE, FD(fd), all, n, flags, addr, addrlen) : -ENOMEM);
    free(all);
    return rc;
}

static ssize_t on_writev(void *p, int fd, const struct iovec *iov, int count)
{
    return send_pieces(p, fd, iov, (size_t)count, 0, NULL, 0);
}

static ssize_t on_sendmsg(void *p, int fd, const struct msghdr *msg, int flags)
{
    return send_pieces(p, fd, msg->msg_iov, msg->msg_iovlen, flags, msg->msg_name, msg->msg_namelen);
}

static ssize_t on_readv(void *p, int fd, const struct iovec *iov, int count)
{
    ssize_t done = 0;
    for (int i = 0; i < count; i++) {
        int64_t n = drive_recvfrom(DRIVE, FD(fd), iov[i].iov_base, iov[i].iov_len, 0, NULL, NULL);
        if (n < 0)
            return done ? done : said(n);
        done += n;
        if ((size_t)n < iov[i].iov_len)
            break;
    }
    return done;
}

static int on_fcntl(void *p, int fd, int cmd, ...)
{
    va_list arguments;
    if (drive_id(DRIVE, FD(fd)) < 0)
        return (int)said(-EBADF);
    va_start(arguments, cmd);
    if (cmd == F_SETFL)
        ((struct plug *)p)->of[fd].flags = va_arg(arguments, int) | O_RDWR;
    va_end(arguments);
    return cmd == F_GETFL ? ((struct plug *)p)->of[fd].flags : 0;
}

static int on_ioctl(void *p, int fd, unsigned long request, ...)
{
    uint64_t unread, unsent, unacked;
    va_list arguments;
    va_start(arguments, request);
    int *out = va_arg(arguments, int *);
    int rc = sock_queues(drive_stack(DRIVE), drive_id(DRIVE, FD(fd)), &unread, &unsent, &unacked);
    va_end(arguments);
    if (rc < 0 || (request != SIOCINQ && request != SIOCOUTQ && request != SIOCOUTQNSD))
        return (int)said(rc < 0 ? rc : -ENOTTY);
    *out = (int)(request == SIOCINQ ? unread : request == SIOCOUTQNSD ? unsent : unsent + unacked);
    return 0;
}

static int on_close(void *p, int fd) { return (int)said(drive_close(DRIVE, FD(fd))); }

static int on_shutdown(void *p, int fd, int how) { return (int)said(drive_shutdown(DRIVE, FD(fd), how)); }

static int on_getsockopt(void *p, int fd, int level, int name, void *value, socklen_t *len)
{
    return (int)said(drive_getsockopt(DRIVE, FD(fd), level, name, value, len));
}

static int on_setsockopt(void *p, int fd, int level, int name, const void *value, socklen_t len)
{
    return (int)said(drive_setsockopt(DRIVE, FD(fd), level, name, value, len));
}

static int on_poll(void *p, struct pollfd *fds, nfds_t count, int timeout)
{
    int ready = 0;
    if (timeout > 0)
        drive_advance(DRIVE, drive_now(DRIVE) + (uint64_t)timeout * 1000 * MICROSECOND);
    for (nfds_t i = 0; i < count; i++) {
        int events = drive_poll(DRIVE, FD(fds[i].fd));
        fds[i].revents = events < 0 ? POLLNVAL : (short)(events & (fds[i].events | POLLERR | POLLHUP));
        ready += fds[i].revents != 0;
    }
    return ready;
}

/* --- packets and time --- */

static int on_packet_in(void *p, const void *buf, size_t n)
{
    return (int)said(drive_inject(DRIVE, drive_now(DRIVE), buf, n));
}

static int on_packet_out(void *p, void *buf, size_t *n, long long *time_usecs)
{
    uint64_t at = 0;
    int64_t got;
    while ((got = drive_take(DRIVE, &at, buf, *n)) == 0) {
        uint64_t due = drive_due(DRIVE);
        if (due == UINT64_MAX)
            break; /* nothing will ever leave */
        drive_advance(DRIVE, due > drive_now(DRIVE) ? due : drive_now(DRIVE));
    }
    *n = got > 0 ? (size_t)got : 0;
    *time_usecs = (long long)(at / MICROSECOND);
    return got < 0 ? (int)said(got) : 0;
}

static int on_usleep(void *p, useconds_t usec)
{
    return (int)said(drive_advance(DRIVE, drive_now(DRIVE) + usec * MICROSECOND));
}

static int on_gettimeofday(void *p, struct timeval *tv, struct timezone *tz)
{
    (void)tz;
    drive_advance(DRIVE, drive_now(DRIVE) + MICROSECOND);
    uint64_t usec = drive_now(DRIVE) / MICROSECOND;
    tv->tv_sec = (time_t)(usec / 1000000);
    tv->tv_usec = (suseconds_t)(usec % 1000000);
    return 0;
}

void packetdrill_interface_init(const char *flags, struct packetdrill_interface *out)
{
    struct plug *p = calloc(1, sizeof *p);
    struct stack_config config;
    char addresses[512], *rest = addresses;
    snprintf(addresses, sizeof addresses, "%s", flags && *flags ? flags : ADDRESSES);
    drive_defaults(&config);
    config.rcvbuf_max = 15 << 20; /* a window scale of 8, as packetdrill's own scripts expect it */
    if (!p || drive_new(&p->d, &config, 1500, 0) < 0)
        abort();
    for (char *address; (address = strsep(&rest, ","));)
        if (drive_address(p->d, address) < 0) {
            fprintf(stderr, "--so_flags: %s is no address with its network\n", address);
            exit(2);
        }
    *out = (struct packetdrill_interface){
        .userdata = p,
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
