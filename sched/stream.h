/* A connected byte stream under a transport: what the stack's TCP sockets and the host's have in common.
 *
 * The table is a contract with C outside this extension, which is given its address: fields are only ever added at the
 * end. `owner` is the stack (stack_stream_ops) or the set of host sockets (host_stream_ops), `id` the socket's. No call
 * blocks, and none calls back. */
#ifndef LIBOS_STREAM_H
#define LIBOS_STREAM_H

#include <stddef.h>
#include <stdint.h>

struct stream_ops {
    /* Bytes that one recv() would give now; 0: end of stream; -EAGAIN, -errno. A promise: recv() of so much is not
     * short if it comes before any other call for this owner. */
    int64_t (*readable)(void *owner, int64_t id);
    /* As recv(2): bytes, 0 at the end of the stream, -EAGAIN, -errno. */
    int64_t (*recv)(void *owner, int64_t id, uint8_t *data, size_t len);
    /* Takes a copy of what there is room for: bytes taken, -EAGAIN, -errno. */
    int64_t (*send)(void *owner, int64_t id, const uint8_t *data, size_t len);
    /* What is at least so long is better lent than sent (host_lend); SIZE_MAX: nothing is. */
    size_t lend_from;
};

#endif
