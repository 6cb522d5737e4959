/* A bare loop of send(2): what the kernel asks for one message at so many connections, with no server around it.

       fanout CONNECTIONS

   Listens on a free port of 127.0.0.1, says the port, accepts so many connections, says `ready`. Then, for each line
   SIZE and the SIZE bytes behind it on stdin, sends those bytes on every connection, and says what that took: CPU time
   of the thread and real time, in nanoseconds. Ends with its stdin; with 1 and a word on stderr when anything fails. */

#define _GNU_SOURCE /* accept4 */

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <time.h>

#define LARGEST_BYTES (1 << 20)

static char data[LARGEST_BYTES];

static int fail(const char *what)
{
    perror(what);
    return 1;
}

static int64_t now_ns(clockid_t clock)
{
    struct timespec now;
    clock_gettime(clock, &now);
    return now.tv_sec * INT64_C(1000000000) + now.tv_nsec;
}

int main(int argc, char **argv)
{
    int connections = argc > 1 ? atoi(argv[1]) : 0, on = 1;
    int *sockets = calloc(connections > 0 ? connections : 1, sizeof *sockets);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length = sizeof address;
    int listener = socket(AF_INET, SOCK_STREAM, 0);
    if (sockets == NULL || listener < 0 || bind(listener, (struct sockaddr *)&address, length) < 0 ||
        listen(listener, connections) < 0 || getsockname(listener, (struct sockaddr *)&address, &length) < 0)
        return fail("listen");
    printf("%d\n", ntohs(address.sin_port));
    fflush(stdout);
    for (int i = 0; i < connections; i++) {
        sockets[i] = accept4(listener, NULL, NULL, SOCK_NONBLOCK);
        if (sockets[i] < 0 || setsockopt(sockets[i], IPPROTO_TCP, TCP_NODELAY, &on, sizeof on) < 0)
            return fail("accept");
    }
    printf("ready\n");
    fflush(stdout);

    size_t size;
    while (scanf("%zu%*1[\n]", &size) == 1) {
        if (size > LARGEST_BYTES || fread(data, 1, size, stdin) != size)
            return fail("stdin");
        int64_t cpu_ns = now_ns(CLOCK_THREAD_CPUTIME_ID), real_ns = now_ns(CLOCK_MONOTONIC);
        for (int i = 0; i < connections; i++)
            if (send(sockets[i], data, size, MSG_NOSIGNAL) != (ssize_t)size)
                return fail("send");
        cpu_ns = now_ns(CLOCK_THREAD_CPUTIME_ID) - cpu_ns;
        real_ns = now_ns(CLOCK_MONOTONIC) - real_ns;
        printf("%lld %lld\n", (long long)cpu_ns, (long long)real_ns);
        fflush(stdout);
    }
    return 0;
}
