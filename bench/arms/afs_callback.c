/* Calls in both directions on OpenAFS's own Rx: a server that calls its client back before it answers, at the exact address and port that
 * the client's packets came from, as an AFS file server does.
 *
 * usage: afs_callback server PORT
 *        afs_callback client HOST PORT CALLS
 *
 * A call carries a number of bytes. The server calls the client with that number, and the client answers with as many; then
 * the server answers with the number plus one. The client's last line is a JSON object; it exits 1 if anything went wrong.
 */
#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <afs/param.h>
#include <afs/stds.h>
#include <rx/rx.h>
#include <rx/rx_null.h>

enum { SERVICE = 147, CALLBACK = 1, CHUNK = 4096, BAD_CALL = -450, BAD_REPLY = -451 };

static unsigned long called_back;

static int read_u32(struct rx_call *call, unsigned *value)
{
    unsigned raw;
    if (rx_Read(call, (char *)&raw, sizeof raw) != sizeof raw)
        return -1;
    *value = ntohl(raw);
    return 0;
}

static int write_u32(struct rx_call *call, unsigned value)
{
    unsigned raw = htonl(value);
    return rx_Write(call, (char *)&raw, sizeof raw) == sizeof raw ? 0 : -1;
}

/* Byte n of a payload is n modulo 251, so that a lost, doubled or moved byte shows. */
static int write_pattern(struct rx_call *call, unsigned bytes)
{
    char chunk[CHUNK];
    unsigned at, i, n;
    for (at = 0; at < bytes; at += n) {
        n = bytes - at < CHUNK ? bytes - at : CHUNK;
        for (i = 0; i < n; i++)
            chunk[i] = (char)((at + i) % 251);
        if (rx_Write(call, chunk, n) != (int)n)
            return -1;
    }
    return 0;
}

static int read_pattern(struct rx_call *call, unsigned bytes)
{
    char chunk[CHUNK];
    unsigned at, i, n;
    for (at = 0; at < bytes; at += n) {
        n = bytes - at < CHUNK ? bytes - at : CHUNK;
        if (rx_Read(call, chunk, n) != (int)n)
            return -1;
        for (i = 0; i < n; i++)
            if ((unsigned char)chunk[i] != (at + i) % 251)
                return -1;
    }
    return 0;
}

/* The client's part of a call back. */
static afs_int32 answer(struct rx_call *call)
{
    unsigned bytes;
    if (read_u32(call, &bytes) || write_pattern(call, bytes))
        return BAD_CALL;
    __atomic_add_fetch(&called_back, 1, __ATOMIC_RELAXED);
    return 0;
}

/* The server's part of a call. */
static afs_int32 serve(struct rx_call *call)
{
    static struct rx_securityClass *security;
    struct rx_peer *peer = rx_PeerOf(rx_ConnectionOf(call));
    struct rx_connection *connection;
    struct rx_call *back;
    unsigned bytes;
    int bad;
    if (read_u32(call, &bytes))
        return BAD_CALL;
    if (!security)
        security = rxnull_NewClientSecurityObject();
    connection = rx_NewConnection(rx_HostOf(peer), rx_PortOf(peer), CALLBACK, security, 0);
    back = rx_NewCall(connection);
    bad = write_u32(back, bytes) || read_pattern(back, bytes);
    bad = rx_EndCall(back, bad ? BAD_REPLY : 0) || bad;
    rx_DestroyConnection(connection);
    return bad || write_u32(call, bytes + 1) ? BAD_REPLY : 0;
}

static int offer(unsigned short id, const char *name, afs_int32 (*procedure)(struct rx_call *), int donate)
{
    static struct rx_securityClass *security[1];
    struct rx_service *service;
    security[0] = rxnull_NewServerSecurityObject();
    service = rx_NewService(0, id, (char *)name, security, 1, procedure);
    if (!service)
        return 2;
    rx_SetMinProcs(service, 2);
    rx_SetMaxProcs(service, 4);
    rx_StartServer(donate);
    return 0;
}

static int client(const char *host, unsigned short port, unsigned long calls)
{
    struct rx_securityClass *security = rxnull_NewClientSecurityObject();
    struct rx_connection *connection = rx_NewConnection(inet_addr(host), htons(port), SERVICE, security, 0);
    unsigned long n, failed = 0;
    for (n = 0; n < calls; n++) {
        struct rx_call *call = rx_NewCall(connection);
        unsigned bytes = n * 331 % 20000, reply = 0;
        int bad = write_u32(call, bytes) || read_u32(call, &reply) || reply != bytes + 1;
        int error = rx_EndCall(call, 0);
        if (bad || error) {
            fprintf(stderr, "call %lu of %u bytes: %d\n", n, bytes, error);
            failed++;
        }
    }
    printf("{\"calls\": %lu, \"failed\": %lu, \"called_back\": %lu}\n", calls, failed, called_back);
    return failed || called_back != calls;
}

int main(int argc, char **argv)
{
    int is_server = argc == 3 && !strcmp(argv[1], "server");
    int is_client = argc == 5 && !strcmp(argv[1], "client");
    if (!is_server && !is_client) {
        fprintf(stderr, "usage: %s server PORT | client HOST PORT CALLS\n", argv[0]);
        return 2;
    }
    if (rx_Init(is_server ? htons(atoi(argv[2])) : 0)) {
        fprintf(stderr, "rx_Init failed\n");
        return 3;
    }
    if (is_server)
        return offer(SERVICE, "calls back", serve, 1);
    return offer(CALLBACK, "callback", answer, 0) || client(argv[2], atoi(argv[3]), atol(argv[4]));
}
