/* One stream on the kernel's stack, as a plain C server does it: `sink` reads all that comes, `source` writes 64 KiB at
 * a time for as long as the connection takes it. One connection after another, blocking. */

#include "peer.h"

#define CHUNK 65536

int main(int argc, char **argv)
{
    static uint8_t buffer[4 * CHUNK];
    if (argc != 5 || (strcmp(argv[4], "sink") && strcmp(argv[4], "source")))
        die("usage: stream_epoll ADDRESS CPU CONGESTION sink|source");
    int sink = !strcmp(argv[4], "sink");
    peer_start(atoi(argv[2]));
    int listener = listen_on(argv[1], argv[3], 0);
    announce(listener);
    for (;;) {
        int fd = accept(listener, NULL, NULL);
        if (fd < 0)
            die_errno("accept");
        if (sink)
            while (recv(fd, buffer, sizeof buffer, 0) > 0)
                ;
        else
            while (send(fd, buffer, CHUNK, MSG_NOSIGNAL) > 0)
                ;
        close(fd);
    }
}
