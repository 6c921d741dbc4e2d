/* The anchor of the rxperf bench: OpenAFS's own Rx library speaking the rxperf protocol (UDP 7009, service 147).
 *
 * usage: afs_rxperf [window PACKETS] server [LEVEL KEYFILE]
 *        afs_rxperf [window PACKETS] client HOST SECONDS THREADS REQUEST_BYTES REPLY_BYTES [LEVEL KEYFILE]
 *        afs_rxperf [window PACKETS] stream HOST SECONDS
 *
 * The window is the library's own, 32 packets, unless another one is named.
 *
 * LEVEL is rxkad's: clear, auth or encrypt; without it calls have no security. KEYFILE is an OpenAFS KeyFile, of which the first
 * key is used: the server opens tickets with it and takes no calls below LEVEL, the client makes its ticket with it, as
 * -localauth does.
 *
 * Each thread of the client makes one call after the other, one at least, four threads to a connection. Every byte of a request
 * is drawn from a seed of the call and digested by the server, and every byte of the reply depends on that digest (payload.h), as in
 * rxline's own rxperf: so each may call the other. The client's last line is a JSON object; it exits 1 if any call failed.
 *
 * `stream` makes one call with an endless reply, aborts it when the time is up, and counts the bytes that came.
 */
#include <arpa/inet.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>
#include <unistd.h>

#include <afs/param.h>
#include <afs/stds.h>
#include <rx/rx.h>
#include <rx/rx_globals.h>
#include <rx/rx_null.h>
#include <rx/rxkad.h>

#include "payload.h"

enum { PORT = 7009, SERVICE = 147, VERSION = 3, OP_SEND = 0, OP_RECV = 1, OP_RPC = 3, COOKIE = 0x4711 };
enum { CHUNK = 4096, SIZE_MAX_ASKED = 2000 << 20, BAD_VERSION = -6, BAD_OP = -455, BAD_LENGTH = -453 };
/* Security classes by their numbers on the wire, and how many a server has to name to have the last. */
enum { NONE = 0, RXKAD = 2, CLASSES = 3 };

/* The service's key, and the level that calls have with it. */
static struct {
    int used, level;
    unsigned kvno;
    struct ktc_encryptionKey key;
} rxkad;

/* Reads LEVEL and the first key of KEYFILE: a count, then a key's number and its 8 bytes. */
static int read_rxkad(const char *level, const char *path)
{
    static const char *const levels[] = { "clear", "auth", "encrypt" };
    unsigned head[2];
    FILE *file = fopen(path, "rb");
    int whole = file && fread(head, sizeof head, 1, file) == 1 && fread(&rxkad.key, sizeof rxkad.key, 1, file) == 1;
    if (file)
        fclose(file);
    if (!whole || !head[0]) {
        fprintf(stderr, "%s: no KeyFile with a key in it\n", path);
        return -1;
    }
    rxkad.kvno = ntohl(head[1]);
    for (rxkad.level = rxkad_clear; rxkad.level <= rxkad_crypt; rxkad.level++)
        if (!strcmp(level, levels[rxkad.level]))
            return rxkad.used = 1, 0;
    fprintf(stderr, "%s: a level is clear, auth or encrypt\n", level);
    return -1;
}

static int key_of(void *rock, int kvno, struct ktc_encryptionKey *key)
{
    (void)rock;
    *key = rxkad.key;
    return kvno == (int)rxkad.kvno ? 0 : RXKADUNKNOWNKEY;
}

/* A client's security with a ticket of the server's own making, good for ever; NULL if none could be made. */
static struct rx_securityClass *client_security(void)
{
    struct ktc_encryptionKey session;
    char ticket[MAXKTCTICKETLEN];
    int len = 0;
    if (!rxkad.used)
        return rxnull_NewClientSecurityObject();
    if (getrandom(&session, sizeof session, 0) != sizeof session ||
        tkt_MakeTicket(ticket, &len, &rxkad.key, "afs", "", "", 0, NEVERDATE, &session, 0, "afs", ""))
        return NULL;
    return rxkad_NewClientSecurityObject(rxkad.level, &session, rxkad.kvno, len, ticket);
}

static int read_u32(struct rx_call *call, unsigned *value, struct digest *digest)
{
    unsigned raw;
    if (rx_Read(call, (char *)&raw, sizeof raw) != sizeof raw)
        return -1;
    digest_add(digest, (unsigned char *)&raw, sizeof raw);
    *value = ntohl(raw);
    return 0;
}

static int write_u32(struct rx_call *call, unsigned value, struct digest *digest)
{
    unsigned raw = htonl(value);
    digest_add(digest, (unsigned char *)&raw, sizeof raw);
    return rx_Write(call, (char *)&raw, sizeof raw) == sizeof raw ? 0 : -1;
}

static int read_pattern(struct rx_call *call, uint64_t seed, unsigned bytes)
{
    unsigned char chunk[CHUNK], expected[CHUNK];
    unsigned at, n;
    for (at = 0; at < bytes; at += n) {
        n = bytes - at < CHUNK ? bytes - at : CHUNK;
        if (rx_Read(call, (char *)chunk, n) != (int)n)
            return -1;
        pattern(seed, at, expected, n);
        if (memcmp(chunk, expected, n))
            return -1;
    }
    return 0;
}

static int read_digest(struct rx_call *call, unsigned bytes, struct digest *digest)
{
    unsigned char chunk[CHUNK];
    unsigned n;
    for (; bytes > 0; bytes -= n) {
        n = bytes < CHUNK ? bytes : CHUNK;
        if (rx_Read(call, (char *)chunk, n) != (int)n)
            return -1;
        digest_add(digest, chunk, n);
    }
    return 0;
}

static int write_pattern(struct rx_call *call, uint64_t seed, unsigned bytes, struct digest *digest)
{
    unsigned char chunk[CHUNK];
    unsigned at, n;
    for (at = 0; at < bytes; at += n) {
        n = bytes - at < CHUNK ? bytes - at : CHUNK;
        pattern(seed, at, chunk, n);
        if (digest)
            digest_add(digest, chunk, n);
        if (rx_Write(call, (char *)chunk, n) != (int)n)
            return -1;
    }
    return 0;
}

static afs_int32 serve(struct rx_call *call)
{
    unsigned version, op, rsize, wsize, out = 0, in = 0;
    unsigned cookie = htonl(COOKIE);
    struct digest digest = { 0 };
    if (read_u32(call, &version, &digest) || version != VERSION)
        return BAD_VERSION;
    if (read_u32(call, &op, &digest) || read_u32(call, &rsize, &digest) || read_u32(call, &wsize, &digest))
        return BAD_LENGTH;
    if (op != OP_SEND && op != OP_RECV && op != OP_RPC)
        return BAD_OP;
    if ((op != OP_RECV && read_u32(call, &in, &digest)) || (op != OP_SEND && read_u32(call, &out, &digest)))
        return BAD_LENGTH;
    if (in > SIZE_MAX_ASKED || out > SIZE_MAX_ASKED || read_digest(call, in, &digest))
        return BAD_LENGTH;
    if (write_pattern(call, digest_value(digest), out, NULL) || rx_Write(call, (char *)&cookie, sizeof cookie) != sizeof cookie)
        return BAD_LENGTH;
    return 0;
}

static int server(void)
{
    static struct rx_securityClass *security[CLASSES];
    struct rx_service *service;
    if (rxkad.used)
        security[RXKAD] = rxkad_NewServerSecurityObject(rxkad.level, NULL, key_of, NULL);
    else
        security[NONE] = rxnull_NewServerSecurityObject();
    service = rx_NewService(0, SERVICE, "rxperf", security, CLASSES, serve);
    if (!service)
        return 2;
    rx_SetMinProcs(service, 4);
    rx_SetMaxProcs(service, 4);
    rx_StartServer(1);
    return 0;
}

static volatile sig_atomic_t stop;
static unsigned request_bytes, reply_bytes;

struct worker {
    pthread_t thread;
    struct rx_connection *connection;
    unsigned long calls, failed;
};

static int ask(struct rx_call *call, uint64_t seed)
{
    unsigned head[] = { VERSION, OP_RPC, CHUNK, CHUNK, request_bytes, reply_bytes }, cookie, word;
    struct digest digest = { 0 };
    for (word = 0; word < sizeof head / sizeof *head; word++)
        if (write_u32(call, head[word], &digest))
            return -1;
    if (write_pattern(call, seed, request_bytes, &digest) || read_pattern(call, digest_value(digest), reply_bytes))
        return -1;
    return read_u32(call, &cookie, &digest) || cookie != COOKIE;
}

static void *work(void *arg)
{
    struct worker *worker = arg;
    uint64_t seed = (uintptr_t)worker;
    do {
        struct rx_call *call = rx_NewCall(worker->connection);
        int bad = ask(call, seed++);
        if (rx_EndCall(call, bad ? BAD_LENGTH : 0) || bad)
            worker->failed++;
        else
            worker->calls++;
    } while (!stop);
    return NULL;
}

static double now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec + time.tv_nsec * 1e-9;
}

static int client(const char *host, unsigned seconds, int threads)
{
    struct rx_securityClass *security = client_security();
    struct worker *workers = calloc(threads, sizeof *workers);
    unsigned long calls = 0, failed = 0;
    double begun, took;
    int i;
    if (!security) {
        fprintf(stderr, "no ticket could be made\n");
        return 3;
    }
    for (i = 0; i < threads; i++)
        workers[i].connection = i % 4 ? workers[i - 1].connection
                                      : rx_NewConnection(inet_addr(host), htons(PORT), SERVICE, security,
                                                         rxkad.used ? RXKAD : NONE);
    begun = now();
    for (i = 0; i < threads; i++)
        pthread_create(&workers[i].thread, NULL, work, &workers[i]);
    sleep(seconds);
    stop = 1;
    for (i = 0; i < threads; i++) {
        pthread_join(workers[i].thread, NULL);
        calls += workers[i].calls;
        failed += workers[i].failed;
    }
    took = now() - begun;
    printf("{\"calls\": %lu, \"failed\": %lu, \"seconds\": %.3f, \"calls_per_second\": %.1f}\n", calls, failed, took,
           calls / took);
    return failed ? 1 : 0;
}

/* One call, its reply read and compared as it comes until the time is up. */
static int stream(const char *host, unsigned seconds)
{
    unsigned head[] = { VERSION, OP_RECV, CHUNK, CHUNK, SIZE_MAX_ASKED }, word;
    unsigned char chunk[CHUNK], expected[CHUNK];
    struct rx_connection *connection =
        rx_NewConnection(inet_addr(host), htons(PORT), SERVICE, rxnull_NewClientSecurityObject(), NONE);
    struct rx_call *call = rx_NewCall(connection);
    struct digest digest = { 0 };
    unsigned long bytes = 0;
    double begun = now(), took = 0;
    int bad = 0;
    for (word = 0; word < sizeof head / sizeof *head; word++)
        bad |= write_u32(call, head[word], &digest);
    for (; !bad && took < seconds; took = now() - begun) {
        pattern(digest_value(digest), bytes, expected, CHUNK);
        bad = rx_Read(call, (char *)chunk, CHUNK) != CHUNK || memcmp(chunk, expected, CHUNK);
        bytes += bad ? 0 : CHUNK;
    }
    rx_EndCall(call, RX_USER_ABORT);
    printf("{\"bytes_received\": %lu, \"failed\": %d, \"seconds\": %.3f}\n", bytes, bad, took);
    return bad;
}

int main(int argc, char **argv)
{
    int is_server, is_client, is_stream, plain;
    if (argc > 2 && !strcmp(argv[1], "window")) {
        rx_SetMaxReceiveWindow(atoi(argv[2]));
        rx_SetMaxSendWindow(atoi(argv[2]));
        argv += 2;
        argc -= 2;
    }
    is_server = argc > 1 && !strcmp(argv[1], "server");
    is_client = argc > 1 && !strcmp(argv[1], "client");
    is_stream = argc == 4 && !strcmp(argv[1], "stream");
    plain = is_server ? 2 : is_client ? 7 : 4;
    if ((!is_server && !is_client && !is_stream) || (argc != plain && argc != plain + 2)) {
        fprintf(stderr,
                "usage: afs_rxperf [window PACKETS] server [LEVEL KEYFILE]\n"
                "       afs_rxperf [window PACKETS] client HOST SECONDS THREADS REQUEST_BYTES REPLY_BYTES [LEVEL KEYFILE]\n"
                "       afs_rxperf [window PACKETS] stream HOST SECONDS\n");
        return 2;
    }
    /* The library's own 64 KB hold some 50 packets of a window of 128, and what is lost there costs it a timeout. */
    rx_SetUdpBufSize(1 << 20);
    if (argc == plain + 2 && read_rxkad(argv[plain], argv[plain + 1]))
        return 2;
    if (rx_Init(is_server ? htons(PORT) : 0)) {
        fprintf(stderr, "rx_Init failed\n");
        return 3;
    }
    if (is_server)
        return server();
    if (is_stream)
        return stream(argv[2], atoi(argv[3]));
    request_bytes = atoi(argv[5]);
    reply_bytes = atoi(argv[6]);
    return client(argv[2], atoi(argv[3]), atoi(argv[4]));
}
