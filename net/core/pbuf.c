/* Packet buffers: see pbuf.h for the contract.
 *
 * A chunk is a struct pbuf followed by its bytes. Chunks of a class are carved from the mapping a run at a time and are
 * never given back to it, only to their free list: memory stays flat once the working set has been seen. Sizes are
 * multiples of 128, so that a chunk that is cut up gives aligned ones. */
#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#include "net/core/pbuf.h"
#include "net/core/sanitize.h"

/* Whole chunks: a clone (no bytes); a header or a bare acknowledgement; an Ethernet frame; a large write; a 64 KiB
 * segment with its headers and headroom. */
static const uint32_t chunk_size[PBUF_CLASSES] = {128, 512, 2304, 16640, 68608};
/* What is carved stays carved: so a size and all smaller ones together get this many sixteenths of the limit and no
 * more, or a flood of small packets would leave no place for a large one for ever after. Large chunks serve for small
 * ones. Frames get more than pbuf_pressure() allows, so that it is felt before there is nothing left to receive into. */
static const uint8_t share[PBUF_CLASSES] = {2, 6, 15, 15, 16};
#define RUN_BYTES 65536

_Static_assert(sizeof(struct pbuf) <= 128, "a clone is one struct pbuf");
_Static_assert(68608 - 128 >= PBUF_ROOM_MAX, "the largest class holds the largest packet");

#define LARGE_PAGE (2ull << 20)

int pbuf_pool_init(struct pbuf_pool *pool, uint64_t limit)
{
    memset(pool, 0, sizeof *pool);
    void *map = mmap(NULL, limit, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (map == MAP_FAILED)
        return -errno;
    pool->map = map;
    /* Large pages for all but the beginning, so that a small machine stays small. Refused: then not. */
    if (limit > 2 * LARGE_PAGE)
        madvise(pool->map + LARGE_PAGE, limit - LARGE_PAGE, MADV_HUGEPAGE);
    pool->limit = limit;
    return 0;
}

void pbuf_pool_free(struct pbuf_pool *pool)
{
    if (!pool->map)
        return;
    memory_unpoison(pool->map, pool->carved);
    munmap(pool->map, pool->limit);
    pool->map = NULL;
}

/* How many chunks of the class its share leaves room for, of n. */
static uint32_t within_share(const struct pbuf_pool *pool, unsigned class, uint32_t n)
{
    uint64_t smaller = 0, most = pool->limit / 16 * share[class];
    for (unsigned c = 0; c <= class; c++)
        smaller += pool->carved_of[c];
    uint64_t room = most > smaller ? (most - smaller) / chunk_size[class] : 0;
    return n < room ? n : (uint32_t)room;
}

static void make_chunks(struct pbuf_pool *pool, unsigned class, uint8_t *at, uint32_t n)
{
    uint32_t size = chunk_size[class];
    for (uint32_t i = 0; i < n; i++) {
        struct pbuf *p = (struct pbuf *)(at + (size_t)i * size);
        memory_unpoison((uint8_t *)p, size);
        p->class = (uint8_t)class;
        p->next = pool->free[class];
        pool->free[class] = p;
        memory_poison((uint8_t *)p + sizeof *p, size - sizeof *p);
    }
    pool->carved_of[class] += (uint64_t)n * size;
}

static bool carve(struct pbuf_pool *pool, unsigned class)
{
    uint64_t run = pool->limit / 64 < RUN_BYTES ? pool->limit / 64 : RUN_BYTES; /* a small pool is not spent on three */
    uint32_t size = chunk_size[class], n = size < run ? (uint32_t)(run / size) : 1;
    uint64_t left = (pool->limit - pool->carved) / size;
    n = within_share(pool, class, n < left ? n : (uint32_t)left);
    make_chunks(pool, class, pool->map + pool->carved, n);
    pool->carved += (uint64_t)n * size;
    return n > 0;
}

/* Cut up the largest chunk that is free, for ever; what does not divide is lost. As far as the share of the small ones
 * goes, so that large ones are left. */
static bool split(struct pbuf_pool *pool, unsigned class)
{
    for (unsigned from = PBUF_CLASSES; --from > class;) {
        struct pbuf *p = pool->free[from];
        uint32_t n = chunk_size[from] / chunk_size[class];
        if (!p || within_share(pool, class, n) < n)
            continue;
        pool->free[from] = p->next;
        pool->carved_of[from] -= chunk_size[from];
        make_chunks(pool, class, (uint8_t *)p, n);
        return true;
    }
    return false;
}

static struct pbuf *take(struct pbuf_pool *pool, unsigned class)
{
    while (class < PBUF_CLASSES && !pool->free[class] && !carve(pool, class) && !split(pool, class))
        class++;
    if (class == PBUF_CLASSES)
        return NULL;
    struct pbuf *p = pool->free[class];
    pool->free[class] = p->next;
    pool->in_use += chunk_size[class];
    pool->frames += class >= PBUF_FRAME ? chunk_size[class] : 0;
    pool->buffers++;
    memory_unpoison((uint8_t *)p + sizeof *p, chunk_size[class] - sizeof *p);
    *p = (struct pbuf){.class = (uint8_t)class, .refs = 1};
    return p;
}

static void give_back(struct pbuf_pool *pool, struct pbuf *p)
{
    memory_poison((uint8_t *)p + sizeof *p, chunk_size[p->class] - sizeof *p);
    pool->in_use -= chunk_size[p->class];
    pool->frames -= p->class >= PBUF_FRAME ? chunk_size[p->class] : 0;
    pool->buffers--;
    p->next = pool->free[p->class];
    pool->free[p->class] = p;
}

static void drop_ref(struct pbuf_pool *pool, struct pbuf *p)
{
    if (--p->refs == 0)
        give_back(pool, p);
}

struct pbuf *pbuf_alloc(struct pbuf_pool *pool, uint32_t headroom, uint32_t room)
{
    for (unsigned class = 1; class < PBUF_CLASSES; class++) {
        uint32_t size = chunk_size[class] - (uint32_t)sizeof(struct pbuf);
        if (headroom + room > size)
            continue;
        struct pbuf *p = take(pool, class);
        if (p) {
            p->base = (uint8_t *)(p + 1);
            p->size = chunk_size[p->class] - (uint32_t)sizeof *p;
            p->off = headroom;
        }
        return p;
    }
    return NULL;
}

struct pbuf *pbuf_clone(struct pbuf_pool *pool, struct pbuf *p, uint32_t off, uint32_t len)
{
    struct pbuf *owner = p->lender ? p->lender : p, *c = take(pool, 0);
    if (!c)
        return NULL;
    owner->refs++;
    c->lender = owner;
    c->base = p->base;
    c->size = p->size;
    c->off = p->off + off;
    c->len = len;
    return c;
}

void pbuf_free(struct pbuf_pool *pool, struct pbuf *p)
{
    while (p) {
        struct pbuf *rest = p->frag, *lender = p->lender;
        drop_ref(pool, p);
        if (lender)
            drop_ref(pool, lender);
        p = rest;
    }
}

struct pbuf *pbuf_fit(struct pbuf_pool *pool, struct pbuf *p)
{
    if (p->lender || p->size <= 4 * p->len || p->size <= chunk_size[1])
        return p;
    struct pbuf *small = pbuf_alloc(pool, 0, p->len);
    if (!small || small->size >= p->size) {
        pbuf_free(pool, small);
        return p;
    }
    memcpy(pbuf_data(small), pbuf_data(p), p->len);
    small->len = p->len;
    small->mark = p->mark;
    small->mark2 = p->mark2;
    pbuf_free(pool, p);
    return small;
}

uint32_t pbuf_copy(const struct pbuf *p, uint32_t off, uint8_t *to, uint32_t len)
{
    uint32_t done = 0;
    for (; p && done < len; p = p->frag) {
        if (off >= p->len) {
            off -= p->len;
            continue;
        }
        uint32_t n = p->len - off < len - done ? p->len - off : len - done;
        memcpy(to + done, pbuf_data(p) + off, n);
        done += n;
        off = 0;
    }
    return done;
}

struct pbuf *pbuf_duplicate(struct pbuf_pool *pool, const struct pbuf *p)
{
    uint32_t len = pbuf_total(p);
    struct pbuf *copy = pbuf_alloc(pool, PBUF_HEADROOM, len);
    if (!copy)
        return NULL;
    copy->len = pbuf_copy(p, 0, pbuf_data(copy), len);
    pbuf_copy_offloads(copy, p);
    return copy;
}

void pbuf_list_clear(struct pbuf_pool *pool, struct pbuf_list *l)
{
    struct pbuf *p;
    while ((p = pbuf_list_pop(l)))
        pbuf_free(pool, p);
}

void queue_clear(struct pbuf_pool *pool, struct pbuf_queue *q)
{
    for (struct pbuf *p; (p = queue_pop(q));)
        pbuf_free(pool, p);
}
