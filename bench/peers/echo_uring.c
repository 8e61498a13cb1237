/* The other native reference: a TCP echo server in C on the kernel's stack, one thread, io_uring.
 *
 * Measured: the kernel's stack at its best interface. One multishot accept, one multishot receive per connection into a
 * ring of provided buffers, one send per piece received, straight from the buffer it came in; submitting and waiting
 * are one system call a round. Raw system calls, no liburing: io_uring(7), io_uring_setup(2), io_uring_enter(2).
 *
 * A connection has one send under way at most, so that bytes keep their order; pieces that arrive meanwhile queue by
 * buffer number. A buffer goes back to the ring when its send is complete. When the ring is empty, a connection's
 * receive ends with ENOBUFS and is armed again once a buffer is back. */

#include "peer.h"
#include <linux/io_uring.h>
#include <sys/mman.h>
#include <sys/syscall.h>

/* Younger than the headers of some distributions that this builds on; the values are the kernel's ABI. */
#ifndef IORING_ACCEPT_MULTISHOT
#define IORING_ACCEPT_MULTISHOT (1U << 0)
#endif
#ifndef IORING_RECV_MULTISHOT
#define IORING_RECV_MULTISHOT (1U << 1)
#endif
#ifndef IORING_SETUP_SINGLE_ISSUER
#define IORING_SETUP_SINGLE_ISSUER (1U << 12)
#endif
#ifndef IORING_SETUP_DEFER_TASKRUN
#define IORING_SETUP_DEFER_TASKRUN (1U << 13)
#endif

#define ENTRIES 1024
#define BUFFERS 1024 /* a power of two */
#define BUFFER_SIZE 16384
#define GROUP 0
#define NONE -1
#define CONNS 65536

enum { ACCEPT, RECV, SEND }; /* user_data = what << 32 | descriptor */

struct conn {          /* by descriptor */
    int head, tail;    /* buffers to send, NONE: nothing */
    uint8_t receiving; /* a multishot receive is armed */
    uint8_t sending;
    uint8_t starved; /* its receive waits for a buffer */
    uint8_t ended;   /* no more will come: close when all is sent */
};

static struct {
    int fd;
    unsigned *sq_head, *sq_tail, sq_mask, sq_entries;
    unsigned *cq_head, *cq_tail, cq_mask;
    struct io_uring_sqe *sqes;
    struct io_uring_cqe *cqes;
    unsigned tail, submitted; /* of the submission queue: filled, and told to the kernel */
    struct io_uring_buf_ring *buffers;
    uint8_t *memory;
    unsigned starved;
    struct {
        int next;
        unsigned from, upto;
    } piece[BUFFERS];
    struct conn conns[CONNS];
} ring;

static void enter(unsigned wait)
{
    __atomic_store_n(ring.sq_tail, ring.tail, __ATOMIC_RELEASE);
    int n = (int)syscall(SYS_io_uring_enter, ring.fd, ring.tail - ring.submitted, wait, IORING_ENTER_GETEVENTS, NULL, 0);
    if (n < 0 && errno != EINTR && errno != EBUSY && errno != EAGAIN)
        die_errno("io_uring_enter");
    if (n > 0)
        ring.submitted += (unsigned)n;
}

static struct io_uring_sqe *sqe_for(unsigned what, int fd)
{
    while (ring.tail - __atomic_load_n(ring.sq_head, __ATOMIC_ACQUIRE) == ring.sq_entries)
        enter(0);
    struct io_uring_sqe *sqe = &ring.sqes[ring.tail++ & ring.sq_mask];
    memset(sqe, 0, sizeof *sqe);
    sqe->fd = fd;
    sqe->user_data = (uint64_t)what << 32 | (unsigned)fd;
    return sqe;
}

static void prep_accept(int listener)
{
    struct io_uring_sqe *sqe = sqe_for(ACCEPT, listener);
    sqe->opcode = IORING_OP_ACCEPT;
    sqe->ioprio = IORING_ACCEPT_MULTISHOT;
    sqe->accept_flags = SOCK_CLOEXEC;
}

static void prep_recv(int fd)
{
    struct io_uring_sqe *sqe = sqe_for(RECV, fd);
    sqe->opcode = IORING_OP_RECV;
    sqe->ioprio = IORING_RECV_MULTISHOT;
    sqe->flags = IOSQE_BUFFER_SELECT;
    sqe->buf_group = GROUP;
    ring.conns[fd].receiving = 1;
}

static void prep_send(int fd)
{
    int id = ring.conns[fd].head;
    struct io_uring_sqe *sqe = sqe_for(SEND, fd);
    sqe->opcode = IORING_OP_SEND;
    sqe->addr = (uintptr_t)(ring.memory + (size_t)id * BUFFER_SIZE + ring.piece[id].from);
    sqe->len = ring.piece[id].upto - ring.piece[id].from;
    sqe->msg_flags = MSG_NOSIGNAL | MSG_WAITALL; /* the kernel goes on after a short send */
    ring.conns[fd].sending = 1;
}

static void give_back(int id)
{
    unsigned tail = ring.buffers->tail;
    struct io_uring_buf *buf = &ring.buffers->bufs[tail & (BUFFERS - 1)];
    buf->addr = (uintptr_t)(ring.memory + (size_t)id * BUFFER_SIZE);
    buf->len = BUFFER_SIZE;
    buf->bid = (uint16_t)id;
    __atomic_store_n(&ring.buffers->tail, (uint16_t)(tail + 1), __ATOMIC_RELEASE);
}

static void drop_head(struct conn *conn)
{
    int id = conn->head;
    conn->head = ring.piece[id].next;
    give_back(id);
}

static void close_if_done(int fd)
{
    struct conn *conn = &ring.conns[fd];
    if (conn->ended && !conn->receiving && !conn->sending && conn->head == NONE)
        close(fd);
}

static void accepted(int listener, const struct io_uring_cqe *cqe)
{
    if (cqe->res >= CONNS)
        die("too many connections");
    if (cqe->res >= 0) {
        ring.conns[cqe->res] = (struct conn){.head = NONE, .tail = NONE};
        prep_recv(cqe->res);
    } else if (cqe->res != -ECONNABORTED) {
        die("accept: %s", strerror(-cqe->res));
    }
    if (!(cqe->flags & IORING_CQE_F_MORE))
        prep_accept(listener);
}

static void received(int fd, const struct io_uring_cqe *cqe)
{
    struct conn *conn = &ring.conns[fd];
    if (!(cqe->flags & IORING_CQE_F_MORE))
        conn->receiving = 0;
    if (cqe->res > 0) {
        int id = (int)(cqe->flags >> IORING_CQE_BUFFER_SHIFT);
        ring.piece[id].next = NONE;
        ring.piece[id].from = 0;
        ring.piece[id].upto = (unsigned)cqe->res;
        if (conn->head == NONE)
            conn->head = id;
        else
            ring.piece[conn->tail].next = id;
        conn->tail = id;
        if (!conn->sending)
            prep_send(fd);
        if (!conn->receiving)
            prep_recv(fd);
    } else if (cqe->res == -ENOBUFS) {
        conn->starved = 1;
        ring.starved++;
    } else {
        conn->ended = 1;
        close_if_done(fd);
    }
}

static void sent(int fd, const struct io_uring_cqe *cqe)
{
    struct conn *conn = &ring.conns[fd];
    conn->sending = 0;
    if (cqe->res < 0) {
        while (conn->head != NONE)
            drop_head(conn);
        shutdown(fd, SHUT_RDWR); /* ends the receive, which closes it */
    } else {
        ring.piece[conn->head].from += (unsigned)cqe->res;
        if (ring.piece[conn->head].from == ring.piece[conn->head].upto)
            drop_head(conn);
        if (conn->head != NONE)
            prep_send(fd);
    }
    close_if_done(fd);
}

static void feed_starved(void)
{
    for (int fd = 0; ring.starved && fd < CONNS; fd++)
        if (ring.conns[fd].starved) {
            ring.conns[fd].starved = 0;
            ring.starved--;
            prep_recv(fd);
        }
}

static void *map(size_t size, int fd, uint64_t offset)
{
    int flags = fd < 0 ? MAP_PRIVATE | MAP_ANONYMOUS : MAP_SHARED | MAP_POPULATE;
    void *p = mmap(NULL, size, PROT_READ | PROT_WRITE, flags, fd, (off_t)offset);
    if (p == MAP_FAILED)
        die_errno("mmap");
    return p;
}

static void set_up(void)
{
    struct io_uring_params p = {.flags = IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN | IORING_SETUP_CQSIZE,
                                .cq_entries = 4 * ENTRIES};
    if ((ring.fd = (int)syscall(SYS_io_uring_setup, ENTRIES, &p)) < 0)
        die_errno("io_uring_setup");
    if (!(p.features & IORING_FEAT_SINGLE_MMAP) || !(p.features & IORING_FEAT_NODROP))
        die("io_uring: this kernel is too old");
    size_t sq = p.sq_off.array + p.sq_entries * sizeof(unsigned);
    size_t cq = p.cq_off.cqes + p.cq_entries * sizeof(struct io_uring_cqe);
    uint8_t *rings = map(sq > cq ? sq : cq, ring.fd, IORING_OFF_SQ_RING);
    ring.sqes = map(p.sq_entries * sizeof(struct io_uring_sqe), ring.fd, IORING_OFF_SQES);
    ring.sq_head = (unsigned *)(rings + p.sq_off.head);
    ring.sq_tail = (unsigned *)(rings + p.sq_off.tail);
    ring.sq_mask = *(unsigned *)(rings + p.sq_off.ring_mask);
    ring.sq_entries = p.sq_entries;
    ring.cq_head = (unsigned *)(rings + p.cq_off.head);
    ring.cq_tail = (unsigned *)(rings + p.cq_off.tail);
    ring.cq_mask = *(unsigned *)(rings + p.cq_off.ring_mask);
    ring.cqes = (struct io_uring_cqe *)(rings + p.cq_off.cqes);
    for (unsigned i = 0; i < p.sq_entries; i++) /* entry i always stands in place i */
        ((unsigned *)(rings + p.sq_off.array))[i] = i;

    ring.memory = map((size_t)BUFFERS * BUFFER_SIZE, -1, 0);
    ring.buffers = map(BUFFERS * sizeof(struct io_uring_buf), -1, 0);
    struct io_uring_buf_reg reg = {
        .ring_addr = (uintptr_t)ring.buffers, .ring_entries = BUFFERS, .bgid = GROUP};
    if (syscall(SYS_io_uring_register, ring.fd, IORING_REGISTER_PBUF_RING, &reg, 1) < 0)
        die_errno("IORING_REGISTER_PBUF_RING");
    for (int id = 0; id < BUFFERS; id++)
        give_back(id);
}

int main(int argc, char **argv)
{
    if (argc != 4)
        die("usage: echo_uring ADDRESS CPU CONGESTION");
    peer_start(atoi(argv[2]));
    int listener = listen_on(argv[1], argv[3], 0);
    set_up();
    prep_accept(listener);
    announce(listener);
    for (;;) {
        enter(1);
        unsigned head = *ring.cq_head, tail = __atomic_load_n(ring.cq_tail, __ATOMIC_ACQUIRE);
        for (; head != tail; head++) {
            const struct io_uring_cqe *cqe = &ring.cqes[head & ring.cq_mask];
            int fd = (int)(uint32_t)cqe->user_data;
            switch (cqe->user_data >> 32) {
            case ACCEPT: accepted(fd, cqe); break;
            case RECV: received(fd, cqe); break;
            case SEND: sent(fd, cqe); break;
            }
        }
        __atomic_store_n(ring.cq_head, head, __ATOMIC_RELEASE);
        if (ring.starved)
            feed_starved();
    }
}
