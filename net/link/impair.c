/* `impair`: a wrapper that makes a wire worse, both ways alike: a line (line.h) out, and a line in. */
#include <errno.h>
#include <stdlib.h>

#include "net/link/line.h"
#include "net/link/link.h"

struct impair {
    struct wrapper w; /* first */
    struct line out, in;
};

static void impair_xmit(struct link *l, struct pbuf *p, uint64_t now)
{
    struct impair *m = (struct impair *)l;
    l->stats.tx_dropped += line_put(&m->out, l->pool, p, now);
}

static void impair_deliver(struct link *inner, struct pbuf *p, uint64_t now)
{
    struct impair *m = inner->upper;
    m->w.link.stats.rx_dropped += line_put(&m->in, inner->pool, p, now);
}

static void impair_run(struct link *l, uint64_t now)
{
    struct impair *m = (struct impair *)l;
    m->w.inner->ops->run(m->w.inner, now);
    for (struct pbuf *p; (p = line_take(&m->out, now));)
        link_xmit(m->w.inner, p, now);
    for (struct pbuf *p; (p = line_take(&m->in, now));)
        link_deliver(l, p, now);
}

static uint64_t earlier_of(uint64_t a, uint64_t b) { return a < b ? a : b; }

static uint64_t impair_due(const struct link *l)
{
    const struct impair *m = (const struct impair *)l;
    return earlier_of(m->w.inner->ops->due(m->w.inner), earlier_of(line_due(&m->out), line_due(&m->in)));
}

static int impair_start(struct link *l)
{
    struct impair *m = (struct impair *)l;
    return wrapper_start(&m->w, impair_deliver);
}

static void impair_free(struct link *l)
{
    struct impair *m = (struct impair *)l;
    line_free(&m->out, l->pool);
    line_free(&m->in, l->pool);
    link_free(m->w.inner);
    free(m);
}

static const struct link_ops impair_ops = {impair_xmit, impair_run, impair_due, impair_start, impair_free};

int link_new_impair(struct link **out, struct link *inner, const struct impairment *how)
{
    struct impair *m = calloc(1, sizeof *m);
    if (!m)
        return -ENOMEM;
    wrapper_init(&m->w, &impair_ops, inner);
    line_init(&m->out, how, 0);
    line_init(&m->in, how, 1);
    *out = &m->w.link;
    return 0;
}
