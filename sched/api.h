/* What Python may call of sched/: the reactor, where one machine waits.
 *
 * A turn of the loop is one call of reactor_turn(). It runs the pollers (stacks with their links: timers and
 * output), submits, waits, reaps completions into the pollers, and fills `events`. Each event is one word:
 * token << 16 | mask. A token names who it is for: a watched descriptor (its number), or a socket of an attached
 * poller (number << 40 | socket id). Python keeps one dict, token -> callable.
 *
 * All calls return 0, a count, or -errno. Times are nanoseconds of the reactor's clock. One thread at a time may call a
 * reactor; it need not always be the same one. Nothing here may be called from another while reactor_turn() waits: to
 * wake it, make a watched descriptor readable. */

#define EV_READ 1     /* data, or a connection to accept, or end of stream */
#define EV_WRITE 2    /* room again, or connected */
#define EV_ERROR 4    /* sock_error() tells which */
#define EV_URGENT 16  /* urgent data is pending (RFC 9293 3.8.5); comes only to who wants it */
#define EV_SENT 32    /* all that was written is with the kernel (sockets of the host); comes only to who wants it */
#define EV_REQUEST 8  /* a deferring listener holds a SYN: accept it or reject it */

#define REACTOR_EVENTS_MAX 1024

#define REACTOR_NEVER 0xffffffffffffffff

struct reactor;
struct poller;

/* liburing: path of the shared object that exports liburing's functions. clock_offset is added to CLOCK_MONOTONIC.
 * -EPERM, -ENOSYS: io_uring is refused here. */
int reactor_new_ring(struct reactor **out, const char *liburing, unsigned entries, uint64_t clock_offset);
int reactor_new_epoll(struct reactor **out, uint64_t clock_offset);
void reactor_free(struct reactor *r); /* pollers and channels must be gone */

/* 1: this process was forked from the one that made the reactor. Here nothing ever happens in it: turns that would wait
 * are refused (-ESTALE), as are watches and channels. It is freed as usual, and its own process notices none of this. */
int reactor_inherited(struct reactor *r);

uint64_t reactor_now(struct reactor *r);
void reactor_set_spin(struct reactor *r, uint64_t ns); /* poll so long before blocking */

/* Level-triggered readiness of a host descriptor: mask of EV_READ|EV_WRITE, 0 forgets it. */
int reactor_watch(struct reactor *r, int fd, unsigned mask);

int reactor_attach(struct reactor *r, struct poller *p); /* the poller's number, 1 to 255 */
int reactor_detach(struct reactor *r, struct poller *p);

/* Waits at most timeout ns (0: only looks; REACTOR_NEVER: until something happens). Returns the number of events;
 * 0 also when a signal arrived. max is 2 at least; what does not fit stays pending. Watched descriptors come first. */
int reactor_turn(struct reactor *r, uint64_t timeout, uint64_t *events, unsigned max);

/* Inside another event loop (see embed.c): a descriptor, the reactor's own, that is readable when reactor_poll() has
 * something to do. A turn that never waits: the number of events, and it wants to be called again when they have been
 * dealt with; 0: nothing until the descriptor says so. -EBUSY: embedded already. */
int reactor_embed(struct reactor *r);
int reactor_poll(struct reactor *r, uint64_t *events, unsigned max);
void reactor_unembed(struct reactor *r); /* the descriptor is closed */

/* --- virtual time ----------------------------------------------------------------------------------------------- */

/* Many reactors on one clock that jumps: see sim.c. Virtual time is in ns from 0. */
struct sim;
int sim_new(struct sim **out, uint64_t seed);
void sim_free(struct sim *s); /* its reactors are gone */
uint64_t sim_now(struct sim *s);

/* id: what sim_next() calls it. Its own clock shows `shown` now, and gains drift_ppb ns a second (-5e8 to 1e9). It can
 * watch no descriptor and has no channels and no sockets of the host (-EOPNOTSUPP). */
int reactor_new_sim(struct reactor **out, struct sim *s, uint32_t id, uint64_t shown, int64_t drift_ppb);
void sim_set_drift(struct reactor *r, int64_t drift_ppb); /* from now on */
/* Its loops must run when its clock shows `when` at the latest; 0: at once. Holds until they have. */
void sim_want(struct reactor *r, uint64_t when);

/* No visits until it goes on. */
void sim_pause(struct reactor *r, int paused);
/* From now on a visit takes so much virtual time; 0: none. */
void sim_set_cost(struct reactor *r, uint64_t ns);

/* Lets time pass, to `until` at most, and what happens then has not yet. The id of the reactor whose loops are to run
 * now: they turn it (sim_turn_ops), and say by sim_want() when they must run again. Or one of these: */
#define SIM_UNTIL -1 /* that time has come */
#define SIM_IDLE -2  /* until REACTOR_NEVER: nothing is left to happen */
#define SIM_BUSY -3  /* ask again: so much happened that signals might want attention */
int64_t sim_next(struct sim *s, uint64_t until);

/* What happened, in order: visits of reactors, and what Python notes. The digest is over all, whatever is recorded. */
#define SIM_VISITED 0
struct sim_event {
    uint64_t at, value;
    uint32_t who, kind;
};
void sim_note(struct sim *s, unsigned kind, uint32_t who, uint64_t value);
int sim_record(struct sim *s, uint64_t most); /* keep events from now on, until there are so many */
uint64_t sim_events(struct sim *s, const struct sim_event **out);

#define SIM_COUNTERS 3
void sim_counters(struct sim *s, uint64_t *out); /* visits, those that Python took part in, the digest */

/* --- for other extensions --------------------------------------------------------------------------------------- */

/* reactor_turn() and its like, as a table (sched/reactor.h) for whoever cannot be linked with them. */
struct turn_ops;
const struct turn_ops *reactor_turn_ops(void);
const struct turn_ops *sim_turn_ops(void);

/* Counters since the start: turns, waits that blocked, completions, submissions, events; rings given up (another thread
 * took over), turns in which a ring's completion queue did not suffice. */
#define REACTOR_COUNTERS 7
void reactor_counters(struct reactor *r, uint64_t *out);
const char *reactor_kind(struct reactor *r); /* "io_uring", "epoll" or "sim" */

/* --- sockets of the host ----------------------------------------------------------------------------------------- */

/* The host's stream sockets of one reactor: connected ones and listeners, TCP or UNIX. With io_uring they are read by
 * multishot receives into shared buffers, and all that was sent since the last turn goes out in its one system call;
 * with epoll, recv(2) and send(2) are called at once.
 *
 * Descriptors stay the caller's: non-blocking, and open until host_close(). An id names one socket for ever, so long as
 * it matters: after host_close() it answers -EBADF. Events come as reactor_turn() gives them, token hosts_base() | id,
 * level-triggered. */
struct host_sockets;
struct stream_ops; /* sched/stream.h */

int hosts_new(struct host_sockets **out, struct reactor *r); /* -EBUSY: it has one */
void hosts_free(struct host_sockets *h); /* closes the sockets (host_close) and lets go of the reactor */
uint64_t hosts_base(struct host_sockets *h);

int64_t host_open(struct host_sockets *h, int fd);   /* connected; the id. Wants nothing yet: see host_want() */
int64_t host_listen(struct host_sockets *h, int fd); /* listening; EV_READ: host_accept() has something to say */
/* A connection's descriptor, close-on-exec and non-blocking, the caller's; -EAGAIN; -EMFILE, -ENFILE, -ENOBUFS, -ENOMEM
 * once for each try that failed so (the next is HOST_ACCEPT_REST_NS later, or when EV_READ is wanted anew). */
int host_accept(struct host_sockets *h, int64_t id);
#define HOST_ACCEPT_REST_NS 1000000000

int64_t host_readable(struct host_sockets *h, int64_t id); /* as stream_ops have these three */
int64_t host_recv(struct host_sockets *h, int64_t id, uint8_t *data, size_t len);
int64_t host_send(struct host_sockets *h, int64_t id, const uint8_t *data, size_t len);
int64_t host_queued(struct host_sockets *h, int64_t id); /* bytes taken and not yet with the kernel */
int host_shutdown(struct host_sockets *h, int64_t id);   /* SHUT_WR after what is queued */
/* EV_READ, EV_WRITE, EV_SENT. Without EV_READ nothing more is read; what has come already stays. EV_ERROR is always
 * wanted. */
int host_want(struct host_sockets *h, int64_t id, unsigned mask);
int host_error(struct host_sockets *h, int64_t id); /* and clear: an errno, 0 */
/* Cancels all that is under way and drops what is queued. The descriptor may be closed right after. */
int host_close(struct host_sockets *h, int64_t id);

/* Sends from the caller's memory, which stays as it is until host_lent() says 0; EV_WRITE is not reported before that.
 * What was sent before goes before it, what is sent from now on behind it. -EAGAIN: something is lent already, or too
 * much is queued: host_send(). -EOPNOTSUPP: host_send() copies nothing here anyhow. If host_close() says 1, the memory
 * is still being read, and EV_WRITE, the last event of this id, tells when it is free. */
#define HOST_LEND_FROM 32768 /* so much is better lent than copied */
int host_lend(struct host_sockets *h, int64_t id, const uint8_t *data, size_t len);
int64_t host_lent(struct host_sockets *h, int64_t id);

const struct stream_ops *host_stream_ops(void);

#define HOSTS_COUNTERS 8
/* Sockets open; bytes received, sent; sends requested; receives that found no buffer; bytes copied out of the way of
 * others; accepts that failed for want of a descriptor or of memory; bytes of memory held. */
void hosts_counters(struct host_sockets *h, uint64_t *out);
