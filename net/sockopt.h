/* Socket options (socket(7), tcp(7), ip(7), ipv6(7)) as tables: one row says all there is to know of an option, so that
 * reading it, setting it and handing it from a listener to its children come from one place.
 *
 * The value of most options is a field of the socket. Others have functions: for one integer, or for bytes. What Linux
 * takes as a switch is one here (any number but 0 is on); numbers out of range are EINVAL or, as Linux does it for
 * some, brought into range. A row without a way to set is ENOPROTOOPT to who tries, one without a way to read likewise. */
#ifndef LIBOS_SOCKOPT_H
#define LIBOS_SOCKOPT_H

#include <stddef.h>

#include "net/sock.h"

enum {
    OPT_STREAM = 1,    /* TCP sockets have it */
    OPT_DGRAM = 2,     /* UDP sockets have it */
    OPT_SWITCH = 4,    /* 0 or 1 */
    OPT_CLAMP = 8,     /* out of range: the nearest that is in it */
    OPT_INHERIT = 16,  /* a child has what its listener had */
    OPT_READ_ONLY = 32 /* the field can be read, not set */
};
#define OPT_ANY (OPT_STREAM | OPT_DGRAM)

struct sockopt {
    int level, name;
    uint8_t flags;    /* OPT_* */
    uint8_t size;     /* of the field: 1, 2 or 4 bytes, signed if `least` is below 0; 0: none */
    uint16_t at;      /* where in the struct that begins with the struct sock */
    int32_t least, most;
    void (*changed)(struct stack *s, struct sock *k); /* after the field was set */
    /* Of one integer, where the field alone does not do. get: the value; set: 0 or -errno. */
    int64_t (*get)(struct stack *s, struct sock *k);
    int (*set)(struct stack *s, struct sock *k, int64_t value);
    /* Of bytes. read: how many were written into buf (at most cap), or -errno. */
    int64_t (*read)(struct stack *s, struct sock *k, void *buf, size_t cap);
    int (*write)(struct stack *s, struct sock *k, const void *buf, size_t len);
};

/* The field of a row; the least and the most of it may follow: OPT_FIELD(struct tcp, keep_count), 1, 127 */
#define OPT_FIELD(type, field) .size = sizeof ((type *)0)->field, .at = offsetof(type, field)

struct sockopt_table {
    const struct sockopt *rows;
    unsigned count;
};
extern const struct sockopt_table tcp_sockopts; /* tcp/sockopt.c */
extern const struct sockopt_table ip_sockopts;  /* ip/options.c */

/* What a child of a listener starts with. */
void sockopt_inherit(const struct sock *from, struct sock *to);

#endif
