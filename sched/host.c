/* Sockets of the host. (The interface; its body follows.) */
#include <errno.h>
#include "sched/backend.h"
#include "sched/stream.h"
int hosts_new(struct host_sockets **out, struct reactor *r) { return -ENOSYS; }
void hosts_free(struct host_sockets *h) {  }
uint64_t hosts_base(struct host_sockets *h) { return -ENOSYS; }
int64_t host_open(struct host_sockets *h, int fd) { return -ENOSYS; }
int64_t host_listen(struct host_sockets *h, int fd) { return -ENOSYS; }
int host_accept(struct host_sockets *h, int64_t id) { return -ENOSYS; }
int64_t host_readable(struct host_sockets *h, int64_t id) { return -ENOSYS; }
int64_t host_recv(struct host_sockets *h, int64_t id, uint8_t *data, size_t len) { return -ENOSYS; }
int64_t host_send(struct host_sockets *h, int64_t id, const uint8_t *data, size_t len) { return -ENOSYS; }
int64_t host_queued(struct host_sockets *h, int64_t id) { return -ENOSYS; }
int host_shutdown(struct host_sockets *h, int64_t id) { return -ENOSYS; }
int host_want(struct host_sockets *h, int64_t id, unsigned mask) { return -ENOSYS; }
int host_error(struct host_sockets *h, int64_t id) { return -ENOSYS; }
int host_close(struct host_sockets *h, int64_t id) { return -ENOSYS; }
const struct stream_ops *host_stream_ops(void) { return NULL; }
void hosts_counters(struct host_sockets *h, uint64_t *out) {  }
