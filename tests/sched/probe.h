/* A poller with one channel, for tests: what net/ is to the reactor, with everything countable. */

struct reactor;
struct probe;

/* Opens a channel on fd. Owns `buffers` of `size` bytes to receive into; of these, `granted` may be given out. */
int probe_new(struct probe **out, struct reactor *r, int fd, unsigned depth, unsigned buffers, unsigned size);
void probe_close(struct probe *p); /* the channel; what it returned can still be asked for */
void probe_free(struct probe *p);

void probe_grant(struct probe *p, unsigned buffers); /* how many may be out at once */
/* In `pieces` pieces. 0, or -ENOBUFS. */
int probe_send(struct probe *p, const uint8_t *data, unsigned len, unsigned pieces);
/* In each run() that follows, so many frames of one byte, until all are taken. */
void probe_send_in_run(struct probe *p, unsigned frames);
/* The oldest frame that came: its length, -EAGAIN. */
int probe_take(struct probe *p, uint8_t *out, unsigned cap);

void probe_deadline(struct probe *p, uint64_t at); /* what run() answers */
void probe_raise(struct probe *p, unsigned events); /* so many events, for sockets 0, 1, ... */
void probe_event_on_frame(struct probe *p, int on); /* a frame raises one: EV_READ for socket 7 */

struct probe_counts {
    unsigned runs, out, returned, pending_frames, sent, lost, unanswered, raised;
    int error; /* the last of received(): -errno */
    uint64_t last_run;
};
void probe_counts(struct probe *p, struct probe_counts *out);

/* An io_uring reactor takes its kernel for one without multishot reads (before Linux 6.7). */
void probe_without_multishot(struct reactor *r);
/* It takes its kernel for one before Linux 6.1 (no multishot receive), or before 6.12 (a buffer for each receive). */
void probe_without_multishot_receive(struct reactor *r);
void probe_without_shared_buffers(struct reactor *r);
