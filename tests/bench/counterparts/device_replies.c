/* The counterpart of publishing over a device link: for each frame that a client sent it writes the same reply.
 *
 * An epoll loop without decoding, topics or history: what is left is the kernel and the framing of spec/wire.md. What
 * came with one read is answered with one write. Says its port on stdout; ends when it is killed.
 */
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum { HEADER_BYTES = 16, READ_BYTES = 65536, MOST_LINKS = 4096, MOST_EVENTS = 256 };

static const char REPLY[] = "\x85\xa2op\xa9published\xa2id\x07\xa5topic\xaaorders:100\xa5"
                            "epoch\xac" "0123456789ab\xa6offset\xcd\x30\x39";
static const char CONNECTED[] = "\x81\xa2op\xa9" "connected";

static struct link { unsigned char *bytes; size_t held; int greeted; } links[MOST_LINKS];

static size_t put(char *out, const char *payload, size_t size)
{
    memset(out, 0, HEADER_BYTES);
    memcpy(out, "HEAR\3", 5);
    out[14] = (char)(size >> 8);
    out[15] = (char)size;
    memcpy(out + HEADER_BYTES, payload, size);
    return HEADER_BYTES + size;
}

/* Answers what is whole, keeps the rest; returns 0 at the end of the stream. */
static int answer(int descriptor)
{
    static char replies[READ_BYTES * 8];
    struct link *link = &links[descriptor];
    size_t at = 0, replies_bytes = 0;
    ssize_t received = recv(descriptor, link->bytes + link->held, READ_BYTES, 0);
    if (received <= 0)
        return 0;
    link->held += (size_t)received;
    while (link->held - at >= HEADER_BYTES) {
        const unsigned char *frame = link->bytes + at;
        size_t size = HEADER_BYTES + ((size_t)frame[13] << 16 | (size_t)frame[14] << 8 | frame[15]);
        if (size > READ_BYTES)
            return 0;
        if (link->held - at < size)
            break;
        if (link->greeted)
            replies_bytes += put(replies + replies_bytes, REPLY, sizeof REPLY - 1);
        else
            replies_bytes += put(replies + replies_bytes, CONNECTED, sizeof CONNECTED - 1);
        link->greeted = 1;
        at += size;
    }
    link->held -= at;
    memmove(link->bytes, link->bytes + at, link->held);
    return replies_bytes == 0 || send(descriptor, replies, replies_bytes, MSG_NOSIGNAL) == (ssize_t)replies_bytes;
}

int main(void)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t address_bytes = sizeof address;
    int listener = socket(AF_INET, SOCK_STREAM, 0), poll = epoll_create1(0), on = 1;
    struct epoll_event event = {.events = EPOLLIN, .data.fd = listener}, events[MOST_EVENTS];
    if (bind(listener, (struct sockaddr *)&address, sizeof address) || listen(listener, SOMAXCONN)
        || getsockname(listener, (struct sockaddr *)&address, &address_bytes)
        || epoll_ctl(poll, EPOLL_CTL_ADD, listener, &event))
        return perror("device_replies"), 1;
    printf("%d\n", ntohs(address.sin_port));
    fflush(stdout);
    for (;;) {
        int count = epoll_wait(poll, events, MOST_EVENTS, -1);
        for (int number = 0; number < count; number++) {
            int descriptor = events[number].data.fd;
            if (descriptor == listener) {
                descriptor = accept(listener, NULL, NULL);
                if (descriptor < 0 || descriptor >= MOST_LINKS)
                    return fprintf(stderr, "device_replies: too many links\n"), 1;
                setsockopt(descriptor, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
                links[descriptor] = (struct link){.bytes = malloc(READ_BYTES * 2)};
                event.data.fd = descriptor;
                epoll_ctl(poll, EPOLL_CTL_ADD, descriptor, &event);
            } else if (!answer(descriptor)) {
                free(links[descriptor].bytes);
                links[descriptor].bytes = NULL;
                close(descriptor);
            }
        }
    }
}
