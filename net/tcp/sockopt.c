/* The socket options of a connection, by Linux's names (tcp(7)). */
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <string.h>
#include <sys/socket.h>

#include "net/sockopt.h"
#include "net/tcp/tcp.h"

/* What Nagle held may go. */
static void nodelay_changed(struct stack *s, struct sock *k)
{
    if (tcp_of(k)->nodelay)
        sock_mark_dirty(s, k);
}

static void keepidle_changed(struct stack *s, struct sock *k) { tcp_keepalive_restart(s, tcp_of(k)); }

/* An ACK that waits for more goes now. tcp(7) has the kernel leave this mode as it sees fit; here it stays until unset. */
static void quickack_changed(struct stack *s, struct sock *k)
{
    struct tcp *t = tcp_of(k);
    if (t->quickack && t->ack_later) {
        t->ack_now = true;
        sock_mark_dirty(s, k);
    }
}

static void mark_dirty(struct stack *s, struct sock *k) { sock_mark_dirty(s, k); }

/* What may be asked for before there is a connection; then, what it has. */
static int64_t get_maxseg(struct stack *s, struct sock *k)
{
    const struct tcp *t = tcp_of(k);
    return t->state != CLOSED && t->state != LISTEN ? t->mss : t->user_mss ? t->user_mss : 536;
}

static int set_maxseg(struct stack *s, struct sock *k, int64_t value)
{
    if (value && (value < 88 || value > 32767)) /* as Linux has it */
        return -EINVAL;
    tcp_of(k)->user_mss = (uint16_t)value;
    return 0;
}

static int64_t get_syncnt(struct stack *s, struct sock *k)
{
    const struct tcp *t = tcp_of(k);
    return t->syn_retries ? t->syn_retries : TCP_SYN_RETRIES;
}

static int64_t get_linger2(struct stack *s, struct sock *k)
{
    int seconds = tcp_of(k)->linger2;
    return seconds < 0 ? -1 : seconds ? seconds : (int64_t)(TCP_WAIT / SECOND);
}

static int set_linger2(struct stack *s, struct sock *k, int64_t value)
{
    tcp_of(k)->linger2 = (int8_t)(value < 0 ? -1 : value > 120 ? 120 : value);
    return 0;
}

/* Seconds are kept as time-outs of the SYN, of 1, 2, 4 ... s (RFC 6298 2.1, 5.5), and read back as those. */
static int64_t get_defer_accept(struct stack *s, struct sock *k)
{
    uint64_t period = 0, wait = TCP_RTO_INITIAL;
    for (unsigned i = 0; i < tcp_of(k)->defer_accept; i++, wait = wait < TCP_RTO_MAX / 2 ? wait * 2 : TCP_RTO_MAX)
        period += wait;
    return (int64_t)(period / SECOND);
}

static int set_defer_accept(struct stack *s, struct sock *k, int64_t value)
{
    struct tcp *t = tcp_of(k);
    for (t->defer_accept = 0; t->defer_accept < UINT8_MAX && get_defer_accept(s, k) < value;)
        t->defer_accept++;
    return 0;
}

#define CONGESTION_NAME_MAX 16 /* TCP_CA_NAME_MAX: what tcp(7) fills, with zeroes behind the name */

static int64_t read_congestion(struct stack *s, struct sock *k, void *buf, size_t cap)
{
    char name[CONGESTION_NAME_MAX] = {0};
    size_t n = cap < sizeof name ? cap : sizeof name;
    strncpy(name, tcp_of(k)->cong->name, sizeof name - 1);
    memcpy(buf, name, n);
    return (int64_t)n;
}

static int write_congestion(struct stack *s, struct sock *k, const void *buf, size_t len)
{
    char name[CONGESTION_NAME_MAX] = {0};
    memcpy(name, buf, len < sizeof name ? len : sizeof name - 1);
    return tcp_set_congestion(s, tcp_of(k), name);
}

static int64_t no_number(struct stack *s, struct sock *k) { return -EINVAL; }

/* Bytes a second, as 32 bits can say them; all ones, or more, is no limit. */
static int64_t get_pacing_rate(struct stack *s, struct sock *k)
{
    uint32_t rate = tcp_of(k)->pacing_rate_max;
    return rate && rate < UINT32_MAX ? (int64_t)rate : UINT32_MAX;
}

static int set_pacing_rate(struct stack *s, struct sock *k, int64_t value)
{
    uint32_t rate = value >= UINT32_MAX ? UINT32_MAX : (uint32_t)value; /* below 0: a C int that was meant unsigned */
    tcp_of(k)->pacing_rate_max = rate == UINT32_MAX ? 0 : rate ? rate : 1;
    sock_mark_dirty(s, k);
    return 0;
}

static const struct sockopt rows[] = {
    {IPPROTO_TCP, TCP_NODELAY, OPT_STREAM | OPT_SWITCH | OPT_INHERIT, OPT_FIELD(struct tcp, nodelay),
     .changed = nodelay_changed},
    {IPPROTO_TCP, TCP_MAXSEG, OPT_STREAM | OPT_INHERIT, OPT_FIELD(struct tcp, user_mss), .get = get_maxseg,
     .set = set_maxseg},
    {IPPROTO_TCP, TCP_CORK, OPT_STREAM | OPT_SWITCH | OPT_INHERIT, OPT_FIELD(struct tcp, cork), .changed = mark_dirty},
    {IPPROTO_TCP, TCP_QUICKACK, OPT_STREAM | OPT_SWITCH | OPT_INHERIT, OPT_FIELD(struct tcp, quickack),
     .changed = quickack_changed},
    {IPPROTO_TCP, TCP_SYNCNT, OPT_STREAM | OPT_INHERIT, OPT_FIELD(struct tcp, syn_retries), 1, 127,
     .get = get_syncnt},
    {IPPROTO_TCP, TCP_LINGER2, OPT_STREAM | OPT_INHERIT, OPT_FIELD(struct tcp, linger2), .get = get_linger2,
     .set = set_linger2},
    {IPPROTO_TCP, TCP_FASTOPEN, OPT_STREAM | OPT_CLAMP, OPT_FIELD(struct tcp, fastopen_max), 0, UINT16_MAX},
    {IPPROTO_TCP, TCP_FASTOPEN_CONNECT, OPT_STREAM | OPT_SWITCH, OPT_FIELD(struct tcp, fastopen_connect)},
    {IPPROTO_TCP, TCP_INFO, OPT_STREAM, .read = tcp_read_info},
    {IPPROTO_TCP, TCP_DEFER_ACCEPT, OPT_STREAM, .get = get_defer_accept, .set = set_defer_accept},
    {IPPROTO_TCP, TCP_USER_TIMEOUT, OPT_STREAM | OPT_INHERIT, OPT_FIELD(struct tcp, user_timeout), 0, INT32_MAX},
    {IPPROTO_TCP, TCP_NOTSENT_LOWAT, OPT_STREAM | OPT_INHERIT, OPT_FIELD(struct tcp, notsent_lowat), 0, INT32_MAX,
     .changed = tcp_lowat_set},
    {IPPROTO_TCP, TCP_KEEPIDLE, OPT_STREAM | OPT_INHERIT, OPT_FIELD(struct tcp, keep_idle), 1, 32767,
     .changed = keepidle_changed},
    {IPPROTO_TCP, TCP_KEEPINTVL, OPT_STREAM | OPT_INHERIT, OPT_FIELD(struct tcp, keep_interval), 1, 32767},
    {IPPROTO_TCP, TCP_KEEPCNT, OPT_STREAM | OPT_INHERIT, OPT_FIELD(struct tcp, keep_count), 1, 127},
    {IPPROTO_TCP, TCP_CONGESTION, OPT_STREAM | OPT_INHERIT, OPT_FIELD(struct tcp, cong), .get = no_number,
     .read = read_congestion, .write = write_congestion},
    {SOL_SOCKET, SO_MAX_PACING_RATE, OPT_STREAM | OPT_INHERIT, OPT_FIELD(struct tcp, pacing_rate_max),
     .get = get_pacing_rate, .set = set_pacing_rate},
};

const struct sockopt_table tcp_sockopts = {rows, sizeof rows / sizeof *rows};
