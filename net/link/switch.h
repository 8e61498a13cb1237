/* A switch: many link ends in memory, and between them what IEEE 802.1D calls a bridge. See switch.c. */
#ifndef LIBOS_SWITCH_H
#define LIBOS_SWITCH_H

#include "net/link/link.h"

#define SWITCH_WAYS 4

struct ether_switch;

/* One end, and what it needs to be a link of whoever takes it. */
struct switch_port {
    struct link link; /* first */
    struct ether_switch *sw;
    struct pbuf_queue in; /* in the pool of who has taken the link */
    unsigned limit;
    bool plugged;
    uint64_t *shut; /* bit i: nothing goes to port i; NULL: it goes to all */
    struct switch_stats stats;
};

/* Where a station was heard last. */
struct station {
    uint8_t mac[6];
    uint16_t port;
    uint64_t seen; /* 0: free */
};

struct ether_switch {
    uint64_t key[2];
    uint64_t ageing;
    unsigned nports, plugged;
    bool closed; /* its owner is done with it: it goes with its last port */
    struct switch_port *ports;
    unsigned nsets;
    struct station (*stations)[SWITCH_WAYS];
    uint64_t evicted;
};

#endif
