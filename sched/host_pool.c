/* The buffers that the kernel receives into: a ring of provided buffers, shared by all sockets of a set.
 *
 * A received piece stays where the kernel put it until its reader copies it out, once, to where it belongs. A buffer
 * goes back when the kernel has filled it and its pieces have been read. Of the buffers at hand the one that was used
 * last is given first, and the kernel has only `stock` of them: so turns of small requests go round in little of the
 * cache. One socket that takes them all is asked again in the next turn, which bounds its share of each; when many find
 * none (ENOBUFS), the stock is doubled.
 *
 * From Linux 6.12 on, receives share a buffer, one behind the other, and buffers can be large; before that each receive
 * takes a buffer of its own. Server's CPU per message of a C echo over these sockets on veth (Linux 6.18; plain C
 * servers took 5.0, 9.4 and 43 us on io_uring, with no copy, and 5.4, 9.6 and 16.5 us on epoll):
 *
 *                                      64 connections, 1 KiB    64, 16 KiB    4, 64 KiB
 *     two of 128 KiB, shared                 5.1 us               9.2 us        21 us
 *     two of 64 KiB, shared                  5.0 us               9.2 us        24 us
 *     of 8 KiB, one for each receive         5.1 us              10.1 us
 *
 * Registered files would take off 1 %, the look-up of the descriptor for a send, and cost two system calls a
 * connection. Bundled receives (Linux 6.10) do for small buffers what shared ones do by being large.
 *
 * A reader that does not read must not keep buffers from the others. What a paused socket has is moved to memory of its
 * own at once, what others have left unread when the stock cannot be filled. */
#define _GNU_SOURCE
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "sched/host.h"
#include "sched/ring.h"

#define SHARED_SIZE (128u << 10) /* of a buffer that receives share, */
#define SINGLE_SIZE (8u << 10)   /* and of one for each */
#define STOCK_BYTES (256u << 10)
#define STARVED_FEW 8

int host_pool_open(struct host_pool *pool, bool incremental)
{
    memset(pool, 0, sizeof *pool);
    pool->incremental = incremental;
    pool->size = incremental ? SHARED_SIZE : SINGLE_SIZE;
    pool->count = POOL_BYTES / pool->size;
    pool->stock = STOCK_BYTES / pool->size;
    pool->mapped = POOL_BYTES + pool->count * sizeof(struct io_uring_buf);
    pool->memory = mmap(NULL, pool->mapped, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (pool->memory == MAP_FAILED)
        pool->memory = NULL;
    pool->idle = calloc(pool->count, sizeof *pool->idle);
    pool->buffers = calloc(pool->count, sizeof *pool->buffers);
    if (!pool->memory || !pool->idle || !pool->buffers) {
        host_pool_free(pool);
        return -ENOMEM;
    }
    pool->shared = (struct io_uring_buf_ring *)(pool->memory + POOL_BYTES);
    for (uint32_t id = pool->count; id-- > 0;)
        pool->idle[pool->idle_count++] = (uint16_t)id;
    return 0;
}

void host_pool_free(struct host_pool *pool)
{
    if (pool->memory)
        munmap(pool->memory, pool->mapped);
    free(pool->idle);
    free(pool->buffers);
    for (struct host_piece *piece; (piece = pool->spare);) {
        pool->spare = piece->next;
        free(piece);
    }
    memset(pool, 0, sizeof *pool);
}

static void provide(struct host_pool *pool, uint16_t id)
{
    struct io_uring_buf *slot = &pool->shared->bufs[pool->tail & (pool->count - 1)];
    /* Not as a whole: the reserved word of the first slot is the ring's tail. */
    slot->addr = (uintptr_t)(pool->memory + (size_t)id * pool->size + pool->buffers[id].used);
    slot->len = pool->size - pool->buffers[id].used;
    slot->bid = id;
    __atomic_store_n(&pool->shared->tail, ++pool->tail, __ATOMIC_RELEASE);
}

void host_pool_restart(struct host_pool *pool)
{
    pool->tail = pool->shared->tail = 0;
    for (uint32_t id = 0; id < pool->count; id++)
        if (pool->buffers[id].held)
            provide(pool, (uint16_t)id);
}

void host_pool_restock(struct host_sockets *h)
{
    struct host_pool *pool = &h->pool;
    if (pool->starved > STARVED_FEW && pool->stock < pool->count)
        pool->stock *= 2;
    pool->starved = 0;
    if (pool->held < pool->stock && !pool->idle_count)
        for (struct host_socket *s = h->ready.head; s; s = s->next_ready)
            host_keep(h, s);
    while (pool->held < pool->stock && pool->idle_count) {
        uint16_t id = pool->idle[--pool->idle_count];
        pool->buffers[id].used = 0;
        pool->buffers[id].held = true;
        pool->held++;
        provide(pool, id);
    }
}

static void give_back(struct host_pool *pool, unsigned id)
{
    if (!pool->buffers[id].held && !pool->buffers[id].pieces)
        pool->idle[pool->idle_count++] = (uint16_t)id;
}

/* --- pieces ------------------------------------------------------------------------------------------------------ */

struct host_piece *host_piece_new(struct host_sockets *h, uint8_t *data, uint32_t len, int32_t buffer)
{
    struct host_piece *piece = buffer == PIECE_HEAP ? NULL : h->pool.spare;
    if (piece)
        h->pool.spare = piece->next;
    else
        piece = malloc(sizeof *piece + (buffer == PIECE_HEAP ? len : 0));
    if (!piece)
        return NULL;
    if (buffer == PIECE_HEAP) {
        data = (uint8_t *)(piece + 1);
        h->kept_bytes += len;
    }
    *piece = (struct host_piece){.data = data, .len = len, .buffer = buffer};
    return piece;
}

void host_piece_free(struct host_sockets *h, struct host_piece *piece)
{
    if (piece->buffer == PIECE_HEAP) {
        h->kept_bytes -= (uint32_t)(piece->data + piece->len - (uint8_t *)(piece + 1));
        free(piece);
        return;
    }
    if (piece->buffer >= 0) {
        h->pool.buffers[piece->buffer].pieces--;
        give_back(&h->pool, (unsigned)piece->buffer);
    }
    piece->next = h->pool.spare;
    h->pool.spare = piece;
}

struct host_piece *host_pool_take(struct host_sockets *h, unsigned id, uint32_t len, bool more)
{
    struct host_pool *pool = &h->pool;
    uint8_t *data = pool->memory + (size_t)id * pool->size + pool->buffers[id].used;
    struct host_piece *piece = len ? host_piece_new(h, data, len, (int32_t)id) : NULL;
    pool->buffers[id].used += len;
    pool->buffers[id].pieces += piece != NULL;
    if (!more) {
        pool->buffers[id].held = false;
        pool->held--;
        give_back(pool, id);
    }
    return piece;
}

void host_keep(struct host_sockets *h, struct host_socket *s)
{
    struct host_piece *kept, *piece = s->in;
    if (!piece || (!piece->next && piece->buffer == PIECE_HEAP))
        return;
    kept = host_piece_new(h, NULL, s->in_bytes, PIECE_HEAP);
    if (!kept)
        return; /* it stays where it is */
    for (uint8_t *to = kept->data; (piece = s->in);) {
        memcpy(to, piece->data, piece->len);
        to += piece->len;
        s->in = piece->next;
        host_piece_free(h, piece);
    }
    h->moved += s->in_bytes;
    s->in = s->in_tail = kept;
}
