/* A client of the volume location database that proves who it is with a ticket from a KDC: what vos cannot do without the kernel module,
 * where tickets are kept.
 *
 * usage: afs_ticket HOST CELL LEVEL lock|unlock VOLUME
 *
 * LEVEL is 0 (clear), 1 (auth) or 2 (encrypt). Takes the ticket of the service afs/CELL from the user's credential cache, or
 * has the KDC make one, and locks a volume's entry or unlocks it, which only an administrator may.
 */
#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <afs/param.h>
#include <afs/stds.h>
#include <krb5.h>
#include <rx/rx.h>
#include <rx/rxkad.h>

/* vldbint.xg: the port, the Rx service, two of its operations, and the kind of volume and of lock. */
enum { PORT = 7003, SERVICE = 52, SET_LOCK = 508, RELEASE_LOCK = 509, READ_WRITE = 0, VOLUME_OPERATION = 0x10, RELEASE_ALL = 7 };
/* rxkad: a Kerberos 5 ticket as it is, its session key to be made a DES key. */
enum { SECURITY = 2, KERBEROS_5 = 256, TICKET_MAX = 12000 };

/* Of OpenAFS's rxkad library, in no header that is installed. */
int tkt_DeriveDesKey(int enctype, void *key, size_t length, struct ktc_encryptionKey *output);

static int fail(krb5_context context, const char *what, long code)
{
    fprintf(stderr, "%s: %s\n", what, context ? krb5_get_error_message(context, code) : "failed");
    return 3;
}

/* Our ticket for the cell's service, and the session key that goes with it. */
static int ticket(const char *cell, krb5_data *out, struct ktc_encryptionKey *key)
{
    krb5_context context;
    krb5_ccache cache;
    krb5_creds wanted, *credentials;
    krb5_error_code code;
    memset(&wanted, 0, sizeof wanted);
    if ((code = krb5_init_context(&context)))
        return fail(NULL, "krb5_init_context", code);
    if ((code = krb5_cc_default(context, &cache)) || (code = krb5_cc_get_principal(context, cache, &wanted.client)))
        return fail(context, "the credential cache", code);
    if ((code = krb5_build_principal(context, &wanted.server, wanted.client->realm.length, wanted.client->realm.data, "afs",
                                     cell, (char *)NULL)) ||
        (code = krb5_get_credentials(context, 0, cache, &wanted, &credentials)))
        return fail(context, "a ticket", code);
    *out = credentials->ticket;
    return tkt_DeriveDesKey(credentials->keyblock.enctype, credentials->keyblock.contents, credentials->keyblock.length, key)
               ? fail(NULL, "the session key", 0)
               : 0;
}

static int ask(struct rx_connection *connection, const afs_int32 *words, int count)
{
    struct rx_call *call = rx_NewCall(connection);
    int n, bad = 0;
    for (n = 0; n < count; n++) {
        afs_int32 word = htonl(words[n]);
        bad |= rx_Write(call, (char *)&word, sizeof word) != sizeof word;
    }
    return rx_EndCall(call, bad ? -1 : 0);
}

int main(int argc, char **argv)
{
    struct ktc_encryptionKey key;
    struct rx_securityClass *security;
    struct rx_connection *connection;
    krb5_data data;
    int status;
    if (argc != 6 || (strcmp(argv[4], "lock") && strcmp(argv[4], "unlock"))) {
        fprintf(stderr, "usage: %s HOST CELL LEVEL lock|unlock VOLUME\n", argv[0]);
        return 2;
    }
    if ((status = ticket(argv[2], &data, &key)))
        return status;
    if (data.length > TICKET_MAX || rx_Init(0))
        return fail(NULL, "rx_Init", 0);
    security = rxkad_NewClientSecurityObject(atoi(argv[3]), &key, KERBEROS_5, data.length, data.data);
    connection = rx_NewConnection(inet_addr(argv[1]), htons(PORT), SERVICE, security, SECURITY);
    if (!strcmp(argv[4], "lock")) {
        afs_int32 words[] = { SET_LOCK, atoi(argv[5]), READ_WRITE, VOLUME_OPERATION };
        status = ask(connection, words, 4);
    } else {
        afs_int32 words[] = { RELEASE_LOCK, atoi(argv[5]), READ_WRITE, RELEASE_ALL };
        status = ask(connection, words, 4);
    }
    printf("{\"error\": %d}\n", status);
    return status != 0;
}
