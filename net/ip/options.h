/* Socket options of IP (ip(7), ipv6(7)). See options.c. */
#ifndef LIBOS_OPTIONS_H
#define LIBOS_OPTIONS_H

#include "net/sock.h"

/* What the socket's options say of a packet that takes this path to dst: its TOS, how large it may be, whether it may
 * be cut. */
void ip_path_for(struct stack *s, const struct sock *k, struct path *path, const struct addr *dst);

#endif
