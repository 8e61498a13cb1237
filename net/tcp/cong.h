/* What the controllers of congestion (struct cong_ops in tcp.h) have in common. A controller's file holds its formulas
 * and its state; it moves cwnd and ssthresh of the one connection that it is called for, and nothing else. Windows are
 * bytes, times ns; no controller uses floating point. */
#ifndef LIBOS_CONG_H
#define LIBOS_CONG_H

#include "net/tcp/tcp.h"

#define CWND_MAX (1u << 30) /* what a scaled window can ask for (RFC 7323 2.3) */
#define SSTHRESH_INITIAL 0x7fffffffu

extern const struct cong_ops cong_reno, cong_cubic;

/* cong.c */
uint32_t cong_initial_window(const struct tcp *t); /* RFC 6928 2 */
void cong_restart(struct tcp *t);                  /* idle for longer than an RTO (RFC 5681 4.1) */
/* parts thousandths of what is under way, two segments at least (RFC 5681 (4)). */
uint32_t cong_share_of_flight(const struct tcp *t, unsigned parts);
/* The bytes by which slow start may answer an acknowledgement of so many (RFC 3465 2.2, RFC 9406 4.2). */
uint32_t cong_slow_start_bytes(const struct tcp *t, uint32_t acked);
/* Open the window in slow start, up to ssthresh and no further. */
void cong_slow_start(struct tcp *t, uint32_t bytes);

/* cong_script.c: controllers registered from outside. NULL: there is no i-th. */
const struct cong_ops *cong_script(const struct stack *s, unsigned i);

/* hystart.c: when the first slow start is to end, before it overruns the path (RFC 9406). */
struct hystart {
    seq_t round_end;    /* windowEnd: a round is over when this is acknowledged */
    uint32_t last_min;  /* ns/256, smallest RTT of the round before; 0: none */
    uint32_t now_min;   /* of this round */
    uint32_t base_min;  /* cssBaselineMinRtt; 0: not in Conservative Slow Start */
    uint8_t samples;    /* of this round */
    uint8_t css_rounds; /* begun in Conservative Slow Start */
    bool started, done;
};
/* An acknowledgement in slow start: opens the window. When it has found the end of the path's room, ssthresh is cwnd. */
void hystart_acked(struct hystart *h, struct tcp *t, const struct ack_sample *a);

#endif
