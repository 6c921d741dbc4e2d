/* The rxperf protocol over the Linux kernel's AF_RXRPC, as both client and server: the peer of the steps rx-linux.
 *
 * usage: afrxrpc server ADDRESS PORT SERVICE [UPGRADED]
 *        afrxrpc client ADDRESS PORT SERVICE REQUEST_BYTES REPLY_BYTES CALLS [MODE]
 *
 * Requests and replies are rxperf's RPC operation; replies are what rxline's server makes of a request (SplitMix64, seeded
 * with a digest of all of the request's bytes), so that a byte that is lost, doubled or moved shows at either end.
 *
 * The client makes one call after the other. MODE is what is done to them instead:
 *   upgrade       asks for a service upgrade
 *   abort=CODE    aborts in the middle of the request
 *   close         closes the socket there
 *   pause=FILE    waits there until FILE exists
 *   badop         asks for an operation that does not exist
 * Its last line is a JSON object: calls verified and failed, how the last one ended, and the service that answered.
 *
 * The server says how each call ended. Some request sizes are orders: SIZE_ABORT is refused with that code, and the reply of
 * SIZE_HOLD stops in its middle and never goes on.
 *
 * RXKAD_KEY=HEX is the DES key of the service. The server takes tickets made with it; the client makes one, as somebody may who has
 * the key, and calls at RXKAD_LEVEL=0..2 (0). RXKAD_KVNO=N says which key that is (4), RXKAD_AGE=N how many seconds ago the ticket
 * began to be good (60).
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <linux/rxrpc.h>
#include <netinet/in.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "ticket.h"

#ifndef SOL_RXRPC
#define SOL_RXRPC 272
#endif

enum { VERSION = 3, OP_RPC = 3, OP_BAD = 99, COOKIE = 0x4711, HEAD = 24, BUFFER = 512 * 1024, CHUNK = 64 * 1024 };
enum { SIZE_ABORT = 4241, SIZE_HOLD = 4242 };
enum { BAD_VERSION = -6, BAD_OP = -455, BAD_LENGTH = -453 };
/* A listening socket takes at most ten waiting calls, and holds at most so many in all. */
enum { CHARGED = 10, CALLS_MAX = 64 };
enum { PROCESS_KEYRING = -2 };

/* ---- bytes that can be told apart ---- */

static uint64_t word_of(uint64_t seed, uint64_t index)
{
    uint64_t z = seed + (index + 1) * 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

static void pattern(uint64_t seed, uint64_t position, unsigned char *out, size_t len)
{
    for (size_t i = 0; i < len; i++, position++)
        out[i] = word_of(seed, position / 8) >> 8 * (position % 8);
}

struct digest {
    uint64_t state, len;
    unsigned char held[8];
};

static void digest_word(struct digest *digest, const unsigned char bytes[8])
{
    uint64_t word;
    memcpy(&word, bytes, 8);
    word ^= digest->state << 5 | digest->state >> 59;
    digest->state = word * 0x9e3779b97f4a7c15u;
}

static void digest_add(struct digest *digest, const unsigned char *bytes, size_t len)
{
    for (size_t i = 0; i < len; i++) {
        digest->held[digest->len++ % 8] = bytes[i];
        if (digest->len % 8 == 0)
            digest_word(digest, digest->held);
    }
}

static uint64_t digest_value(struct digest digest)
{
    memset(digest.held + digest.len % 8, 0, 8 - digest.len % 8);
    digest_word(&digest, digest.held);
    memcpy(digest.held, &digest.len, 8);
    digest_word(&digest, digest.held);
    return digest.state ^ digest.state >> 32;
}

/* ---- AF_RXRPC ---- */

static struct sockaddr_rxrpc address(const char *text, int port, int service)
{
    struct sockaddr_rxrpc to = {.srx_family = AF_RXRPC, .srx_service = service, .transport_type = SOCK_DGRAM};
    if (inet_pton(AF_INET, text, &to.transport.sin.sin_addr) == 1) {
        to.transport.sin.sin_family = AF_INET;
        to.transport.sin.sin_port = htons(port);
        to.transport_len = sizeof to.transport.sin;
    } else if (inet_pton(AF_INET6, text, &to.transport.sin6.sin6_addr) == 1) {
        to.transport.sin6.sin6_family = AF_INET6;
        to.transport.sin6.sin6_port = htons(port);
        to.transport_len = sizeof to.transport.sin6;
    } else {
        fprintf(stderr, "no address: %s\n", text);
        exit(2);
    }
    return to;
}

static struct cmsghdr *control(struct msghdr *message, int type, const void *data, size_t len)
{
    struct cmsghdr *header = (struct cmsghdr *)((char *)message->msg_control + message->msg_controllen);
    header->cmsg_level = SOL_RXRPC;
    header->cmsg_type = type;
    header->cmsg_len = CMSG_LEN(len);
    memcpy(CMSG_DATA(header), data, len);
    message->msg_controllen += CMSG_SPACE(len);
    return header;
}

/* One message about a call; `type` 0 says nothing but the call's name. */
static ssize_t tell(int fd, unsigned long call, int type, const void *value, size_t value_len, const void *bytes,
                    size_t len, int flags)
{
    char room[128] = {0};
    struct iovec data = {(void *)bytes, len};
    struct msghdr message = {.msg_iov = &data, .msg_iovlen = len > 0, .msg_control = room};
    control(&message, RXRPC_USER_CALL_ID, &call, sizeof call);
    if (type)
        control(&message, type, value, value_len);
    return sendmsg(fd, &message, flags);
}

/* All of it, unless the call ends. */
static int send_all(int fd, unsigned long call, const unsigned char *bytes, size_t len, int more)
{
    while (len > 0) {
        ssize_t sent = tell(fd, call, 0, NULL, 0, bytes, len, more ? MSG_MORE : 0);
        if (sent < 0)
            return -1;
        bytes += sent;
        len -= sent;
    }
    return 0;
}

struct event {
    unsigned long call;
    int is_new, more, over, service;
    char end[40];
};

static ssize_t receive(int fd, unsigned char *bytes, size_t len, struct event *event)
{
    char room[256];
    struct sockaddr_rxrpc from = {0};
    struct iovec data = {bytes, len};
    struct msghdr message = {.msg_name = &from, .msg_namelen = sizeof from, .msg_iov = &data, .msg_iovlen = 1,
                             .msg_control = room, .msg_controllen = sizeof room};
    ssize_t got = recvmsg(fd, &message, 0);
    if (got < 0)
        return got;
    *event = (struct event){.more = message.msg_flags & MSG_MORE, .over = message.msg_flags & MSG_EOR,
                            .service = from.srx_service, .end = "succeeded"};
    for (struct cmsghdr *at = CMSG_FIRSTHDR(&message); at; at = CMSG_NXTHDR(&message, at)) {
        int value = 0;
        if (at->cmsg_len >= CMSG_LEN(sizeof value))
            memcpy(&value, CMSG_DATA(at), sizeof value);
        switch (at->cmsg_type) {
        case RXRPC_USER_CALL_ID: memcpy(&event->call, CMSG_DATA(at), sizeof event->call); break;
        case RXRPC_NEW_CALL: event->is_new = 1; break;
        case RXRPC_ABORT: snprintf(event->end, sizeof event->end, "abort %d", value); break;
        case RXRPC_BUSY: snprintf(event->end, sizeof event->end, "busy"); break;
        case RXRPC_NET_ERROR: snprintf(event->end, sizeof event->end, "network error %d", value); break;
        case RXRPC_LOCAL_ERROR: snprintf(event->end, sizeof event->end, "local error %d", value); break;
        }
    }
    return got;
}

static int open_socket(const struct sockaddr_rxrpc *peer)
{
    int fd = socket(AF_RXRPC, SOCK_DGRAM, peer->transport.family == AF_INET ? PF_INET : PF_INET6);
    if (fd < 0)
        fail("socket(AF_RXRPC)");
    return fd;
}

/* ---- rxkad ---- */

static void client_security(int fd)
{
    /* What add_key(2) takes for a key of type rxrpc: include/keys/rxrpc-type.h, all in the CPU's own order. */
    struct {
        uint32_t version;
        uint16_t security, ticket_len;
        uint32_t expires, kvno;
        unsigned char session[DES_KEY], ticket[TICKET_ROOM];
    } payload = {1, RXRPC_SECURITY_RXKAD, 0, time(NULL) + 3600, number_from("RXKAD_KVNO", 4), {0}, {0}};
    unsigned char key[DES_KEY];
    unsigned level = number_from("RXKAD_LEVEL", RXRPC_SECURITY_PLAIN);
    if (!service_key(key))
        return;
    payload.ticket_len = make_ticket(payload.ticket, payload.session, key, number_from("RXKAD_AGE", 60));
    size_t len = sizeof payload - TICKET_ROOM + payload.ticket_len;
    if (syscall(SYS_add_key, "rxrpc", "afs@lab", &payload, len, PROCESS_KEYRING) < 0)
        fail("add_key rxrpc");
    if (setsockopt(fd, SOL_RXRPC, RXRPC_SECURITY_KEY, "afs@lab", 7))
        fail("RXRPC_SECURITY_KEY");
    if (setsockopt(fd, SOL_RXRPC, RXRPC_MIN_SECURITY_LEVEL, &level, sizeof level))
        fail("RXRPC_MIN_SECURITY_LEVEL");
}

/* The key is looked up by the service that a RESPONSE names: after an upgrade, the other one. */
static void server_security(int fd, const unsigned short services[2])
{
    unsigned char key[DES_KEY];
    char name[40];
    if (!service_key(key))
        return;
    long ring = syscall(SYS_add_key, "keyring", "afrxrpc", NULL, 0, PROCESS_KEYRING);
    if (ring < 0)
        fail("add_key keyring");
    for (int i = 0; i < 2 && services[i]; i++) {
        snprintf(name, sizeof name, "%d:%d", services[i], RXRPC_SECURITY_RXKAD);
        if (syscall(SYS_add_key, "rxrpc_s", name, key, DES_KEY, ring) < 0)
            fail("add_key rxrpc_s");
    }
    if (setsockopt(fd, SOL_RXRPC, RXRPC_SECURITY_KEYRING, "afrxrpc", 7))
        fail("RXRPC_SECURITY_KEYRING");
}

/* ---- the client ---- */

struct work {
    unsigned request, reply;
    const char *mode;
};

static int mode_is(const struct work *work, const char *name)
{
    return !strncmp(work->mode, name, strlen(name));
}

static size_t make_request(const struct work *work, unsigned long seed, unsigned char *request)
{
    unsigned op = mode_is(work, "badop") ? OP_BAD : OP_RPC;
    unsigned words[HEAD / 4] = {VERSION, op, BUFFER, BUFFER, work->request, work->reply};
    for (int i = 0; i < HEAD / 4; i++)
        words[i] = htonl(words[i]);
    memcpy(request, words, HEAD);
    pattern(seed, 0, request + HEAD, work->request);
    return HEAD + work->request;
}

/* Whether the call goes on after the middle of its request. */
static int in_the_middle(int fd, unsigned long call, const struct work *work)
{
    const char *value = strchr(work->mode, '=');
    int code = value ? atoi(value + 1) : 0;
    if (mode_is(work, "close")) {
        close(fd);
        printf("{\"verified\": 0, \"failed\": 1, \"end\": \"closed\", \"service\": 0}\n");
        exit(0);
    }
    if (mode_is(work, "pause")) {
        printf("half\n");
        fflush(stdout);
        while (access(value + 1, F_OK))
            usleep(20000);
    }
    if (mode_is(work, "abort")) {
        tell(fd, call, RXRPC_ABORT, &code, sizeof code, NULL, 0, 0);
        return 0;
    }
    return 1;
}

/* Gives the request; how the call fares is for the reply to say. */
static void send_request(int fd, unsigned long call, const struct work *work, const unsigned char *bytes, size_t len)
{
    size_t half = len / 2;
    if (mode_is(work, "upgrade")) {
        if (tell(fd, call, RXRPC_UPGRADE_SERVICE, NULL, 0, bytes, half, MSG_MORE) != (ssize_t)half)
            return;
    } else if (send_all(fd, call, bytes, half, 1)) {
        return;
    }
    if (in_the_middle(fd, call, work))
        send_all(fd, call, bytes + half, len - half, 0);
}

/* 1: the reply was right and the call ended well. */
static int take_reply(int fd, const struct work *work, uint64_t seed, struct event *event)
{
    static unsigned char bytes[CHUNK], expected[CHUNK];
    uint64_t at = 0, end = (uint64_t)work->reply + 4;
    int right = 1;
    unsigned cookie = htonl(COOKIE);
    do {
        ssize_t got = receive(fd, bytes, sizeof bytes, event);
        if (got < 0)
            fail("recvmsg");
        pattern(seed, at, expected, got);
        for (ssize_t i = 0; i < got; i++, at++) {
            unsigned char wanted = at < work->reply ? expected[i] : at < end ? ((unsigned char *)&cookie)[at - work->reply] : 0;
            right &= at < end && bytes[i] == wanted;
        }
    } while (!event->over);
    if (strcmp(event->end, "succeeded"))
        return 0;
    if (!right || at != end)
        snprintf(event->end, sizeof event->end, "wrong reply, %llu bytes", (unsigned long long)at);
    return right && at == end;
}

static int client(int argc, char **argv)
{
    struct work work = {atoi(argv[5]), atoi(argv[6]), argc > 8 ? argv[8] : ""};
    struct sockaddr_rxrpc server = address(argv[2], atoi(argv[3]), atoi(argv[4]));
    struct sockaddr_rxrpc local = address(server.transport.family == AF_INET ? "0.0.0.0" : "::", 0, 0);
    unsigned char *request = malloc(HEAD + (size_t)work.request);
    int fd = open_socket(&server), verified = 0, failed = 0, calls = atoi(argv[7]);
    struct event event = {0};
    client_security(fd);
    if (bind(fd, (struct sockaddr *)&local, sizeof local))
        fail("bind");
    if (connect(fd, (struct sockaddr *)&server, sizeof server))
        fail("connect");
    for (int call = 1; call <= calls; call++) {
        struct digest digest = {0};
        size_t len = make_request(&work, call * 7919ul + getpid(), request);
        digest_add(&digest, request, len);
        send_request(fd, call, &work, request, len);
        if (take_reply(fd, &work, digest_value(digest), &event))
            verified++;
        else
            failed++;
    }
    printf("{\"verified\": %d, \"failed\": %d, \"end\": \"%s\", \"service\": %d}\n", verified, failed, event.end,
           event.service);
    return 0;
}

/* ---- the server ---- */

struct call {
    unsigned long id;
    struct digest digest;
    unsigned char head[HEAD];
    uint64_t got;
};

static unsigned head_word(const struct call *call, int index)
{
    unsigned word;
    memcpy(&word, call->head + 4 * index, 4);
    return ntohl(word);
}

static void take_request(struct call *call, const unsigned char *bytes, size_t len)
{
    if (call->got < HEAD)
        memcpy(call->head + call->got, bytes, len < HEAD - call->got ? len : HEAD - call->got);
    digest_add(&call->digest, bytes, len);
    call->got += len;
}

static void refuse(int fd, const struct call *call, int code)
{
    tell(fd, call->id, RXRPC_ABORT, &code, sizeof code, NULL, 0, 0);
}

/* The request is whole. */
static void answer(int fd, const struct call *call)
{
    static unsigned char bytes[CHUNK];
    uint64_t seed = digest_value(call->digest), reply = head_word(call, 5), end = reply + 4;
    unsigned request = head_word(call, 4), cookie = htonl(COOKIE);
    if (call->got < HEAD || head_word(call, 0) != VERSION)
        return refuse(fd, call, BAD_VERSION);
    if (head_word(call, 1) != OP_RPC)
        return refuse(fd, call, BAD_OP);
    if (call->got != HEAD + (uint64_t)request)
        return refuse(fd, call, BAD_LENGTH);
    if (request == SIZE_ABORT)
        return refuse(fd, call, SIZE_ABORT);
    if (request == SIZE_HOLD) {
        pattern(seed, 0, bytes, CHUNK / 4);
        send_all(fd, call->id, bytes, CHUNK / 4, 1);
        return;
    }
    for (uint64_t at = 0; at < end;) {
        size_t len = end - at < CHUNK ? end - at : CHUNK;
        pattern(seed, at, bytes, len);
        for (uint64_t i = at < reply ? reply : at; i < at + len; i++)
            bytes[i - at] = ((unsigned char *)&cookie)[i - reply];
        if (send_all(fd, call->id, bytes, len, at + len < end))
            return;
        at += len;
    }
}

static void charge(int fd, unsigned long *next)
{
    if (tell(fd, (*next)++, RXRPC_CHARGE_ACCEPT, NULL, 0, NULL, 0, 0) < 0)
        fail("RXRPC_CHARGE_ACCEPT");
}

static void server(int argc, char **argv)
{
    static unsigned char bytes[CHUNK];
    static struct call calls[CALLS_MAX];
    struct sockaddr_rxrpc local = address(argv[2], atoi(argv[3]), atoi(argv[4]));
    unsigned short services[2] = {local.srx_service, argc > 5 ? atoi(argv[5]) : 0};
    int fd = open_socket(&local);
    unsigned long next = 1;
    server_security(fd, services);
    if (bind(fd, (struct sockaddr *)&local, sizeof local))
        fail("bind");
    if (services[1]) {
        local.srx_service = services[1];
        if (bind(fd, (struct sockaddr *)&local, sizeof local))
            fail("bind the second service");
        if (setsockopt(fd, SOL_RXRPC, RXRPC_UPGRADEABLE_SERVICE, services, sizeof services))
            fail("RXRPC_UPGRADEABLE_SERVICE");
    }
    if (listen(fd, CHARGED))
        fail("listen");
    for (int i = 0; i < CHARGED; i++)
        charge(fd, &next);
    printf("serving\n");
    for (;;) {
        struct event event;
        fflush(stdout);
        ssize_t got = receive(fd, bytes, sizeof bytes, &event);
        struct call *call = &calls[event.call % CALLS_MAX];
        if (got < 0)
            fail("recvmsg");
        if (call->id != event.call) {
            *call = (struct call){.id = event.call};
            charge(fd, &next);
        }
        /* Kernels announce a call with its first data, or before it. */
        if (event.is_new && got == 0)
            continue;
        take_request(call, bytes, got);
        if (event.over)
            printf("service %d: %s\n", event.service, event.end);
        else if (!event.more)
            answer(fd, call);
    }
}

int main(int argc, char **argv)
{
    if (argc >= 5 && !strcmp(argv[1], "server"))
        server(argc, argv);
    if (argc >= 8 && !strcmp(argv[1], "client"))
        return client(argc, argv);
    fprintf(stderr, "usage: %s server ADDRESS PORT SERVICE [UPGRADED]\n"
                    "       %s client ADDRESS PORT SERVICE REQUEST_BYTES REPLY_BYTES CALLS [MODE]\n", argv[0], argv[0]);
    return 2;
}
