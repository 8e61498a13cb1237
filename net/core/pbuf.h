/* Packet buffers.
 *
 * A pbuf is a window (off, len) onto a buffer of `size` bytes. A packet is a chain of pbufs through `frag`; a queue is
 * a chain of packets through `next`. A buffer has a count of references: a clone is a pbuf with a window of its own
 * onto another's buffer (`lender`), and holds one reference to it, so a send queue and the frames cut from it share
 * bytes.
 *
 * Ownership: whoever holds the pointer owns the packet; functions that take a packet over say so; pbuf_free() ends it.
 * All buffers of a pool are carved from one mapping of at most `limit` bytes, in five sizes; a freed one goes back to
 * the list of its size. When all is carved, a large one that is free is cut into small ones. The pool never grows past
 * the limit: pbuf_alloc() answers NULL. */
#ifndef LIBOS_PBUF_H
#define LIBOS_PBUF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define PBUF_CLASSES 5
#define PBUF_FRAME 2 /* the first class that holds an Ethernet frame */
#define PBUF_HEADROOM 64 /* kept free in front of a frame: a link's own header, and alignment */

#define PBUF_CSUM_OK 1      /* received: the transport checksum was verified, or never left this host */
#define PBUF_GROUP 4        /* received: the frame was for a group of hosts */
#define PBUF_CSUM_PARTIAL 2 /* to send: the pseudo-header's sum is in the field at csum_start + csum_offset */

struct pbuf {
    struct pbuf *next;
    struct pbuf *frag;
    struct pbuf *lender;
    uint8_t *base;
    uint32_t size, off, len;
    uint32_t refs;
    uint8_t class;
    uint8_t flags;
    uint16_t gso_size;                /* payload bytes of each segment it stands for; 0: one */
    /* From the start of the frame; from csum_start. Received, with PBUF_CSUM_OK: not 0 where the field still holds what
     * it did under PBUF_CSUM_PARTIAL, which matters to who sends the frame on. */
    uint16_t csum_start, csum_offset;
    /* Who holds it may use these: TCP, the sequence number of its first byte; UDP, its addresses' place. */
    uint32_t mark;
    uint32_t mark2;
    struct pbuf *mate; /* TCP, out of order: the last packet of the run that it begins */
};

struct pbuf_list {
    struct pbuf *head, *tail;
};
struct pbuf_queue { /* one that counts */
    struct pbuf *head, *tail;
    uint32_t count;
};

struct pbuf_pool {
    uint8_t *map;
    uint64_t limit, carved, in_use;
    uint64_t frames; /* bytes in use in chunks for frames and data: of PBUF_FRAME and above */
    uint64_t carved_of[PBUF_CLASSES];
    struct pbuf *free[PBUF_CLASSES];
    uint32_t buffers; /* in use */
};

int pbuf_pool_init(struct pbuf_pool *pool, uint64_t limit);
void pbuf_pool_free(struct pbuf_pool *pool);

/* Room for at least `room` bytes after `headroom`; len is 0. NULL: over the limit. */
struct pbuf *pbuf_alloc(struct pbuf_pool *pool, uint32_t headroom, uint32_t room);
/* A window of len bytes, off bytes into p's own window. p must not have frags. */
struct pbuf *pbuf_clone(struct pbuf_pool *pool, struct pbuf *p, uint32_t off, uint32_t len);
/* The packet with all its frags. NULL is fine. */
void pbuf_free(struct pbuf_pool *pool, struct pbuf *p);
#define PBUF_ROOM_MAX 68000

/* Bytes there can be for frames and data: all but what was carved for headers and clones, which stays what it is. */
static inline uint64_t pbuf_frames_max(const struct pbuf_pool *pool)
{
    uint64_t n = pool->limit;
    for (unsigned c = 0; c < PBUF_FRAME; c++)
        n -= pool->carved_of[c];
    return n;
}
/* So little of it is left that it should go to headers and acknowledgements, which free more than they take. */
static inline bool pbuf_pressure(const struct pbuf_pool *pool)
{
    uint64_t most = pbuf_frames_max(pool);
    return pool->frames > most - most / 8;
}

static inline uint8_t *pbuf_data(const struct pbuf *p) { return p->base + p->off; }
static inline uint32_t pbuf_tailroom(const struct pbuf *p) { return p->lender ? 0 : p->size - p->off - p->len; }
static inline uint8_t *pbuf_push(struct pbuf *p, uint32_t n)
{
    p->off -= n;
    p->len += n;
    return p->base + p->off;
}
static inline void pbuf_pull(struct pbuf *p, uint32_t n)
{
    p->off += n;
    p->len -= n;
}
static inline uint32_t pbuf_total(const struct pbuf *p)
{
    uint32_t n = 0;
    for (; p; p = p->frag)
        n += p->len;
    return n;
}
/* p, or what it says in a buffer that fits: a few bytes should not hold a large one. Takes p. No frags. */
struct pbuf *pbuf_fit(struct pbuf_pool *pool, struct pbuf *p);
/* What a device is still to do, from one packet to another with the same bytes. */
static inline void pbuf_copy_offloads(struct pbuf *to, const struct pbuf *from)
{
    to->flags = from->flags;
    to->gso_size = from->gso_size;
    to->csum_start = from->csum_start;
    to->csum_offset = from->csum_offset;
}
/* A copy with bytes of its own, whatever p shares, headroom in front; with what a device is still to do. NULL: over the
 * limit. */
struct pbuf *pbuf_duplicate(struct pbuf_pool *pool, const struct pbuf *p);
/* Copies up to len bytes of the packet from offset off; returns how many there were. */
uint32_t pbuf_copy(const struct pbuf *p, uint32_t off, uint8_t *to, uint32_t len);

static inline void pbuf_list_push(struct pbuf_list *l, struct pbuf *p)
{
    p->next = NULL;
    if (l->tail)
        l->tail->next = p;
    else
        l->head = p;
    l->tail = p;
}
static inline struct pbuf *pbuf_list_pop(struct pbuf_list *l)
{
    struct pbuf *p = l->head;
    if (p) {
        l->head = p->next;
        if (!l->head)
            l->tail = NULL;
        p->next = NULL;
    }
    return p;
}
void pbuf_list_clear(struct pbuf_pool *pool, struct pbuf_list *l);
static inline void queue_push(struct pbuf_queue *q, struct pbuf *p)
{
    p->next = NULL;
    if (q->tail)
        q->tail->next = p;
    else
        q->head = p;
    q->tail = p;
    q->count++;
}
static inline struct pbuf *queue_pop(struct pbuf_queue *q)
{
    struct pbuf *p = q->head;
    if (p) {
        q->head = p->next;
        if (!q->head)
            q->tail = NULL;
        p->next = NULL;
        q->count--;
    }
    return p;
}
void queue_clear(struct pbuf_pool *pool, struct pbuf_queue *q);

#endif
