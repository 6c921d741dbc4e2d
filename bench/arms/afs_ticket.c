/* A client of a cell's databases that proves who it is with a ticket from a KDC: what vos and pts cannot do without the kernel module, where
 * tickets are kept.
 *
 * usage: afs_ticket HOST CELL LEVEL lock|unlock VOLUME
 *        afs_ticket HOST CELL LEVEL group NAME
 *
 * LEVEL is 0 (clear), 1 (auth) or 2 (encrypt). Takes the ticket of the service afs/CELL from the user's credential cache, or
 * has the KDC make one; locks a volume's entry or unlocks it, which only an administrator may; or makes a group, which then belongs to
 * the user as the protection server sees it.
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
/* ptint.xg, ptserver.h: the same of the protection database; its owner 0 is the caller. */
enum { PT_PORT = 7002, PT_SERVICE = 73, NEW_ENTRY = 509, GROUP = 2, NAME_WORDS = 16 };
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

/* Words of XDR: a string's length, and its bytes filled up with zeros. How many. */
static int name_words(const char *name, afs_int32 *words)
{
    int length = strlen(name), n, count = (length + 3) / 4;
    unsigned char bytes[4 * NAME_WORDS] = { 0 };
    memcpy(bytes, name, length);
    words[0] = length;
    for (n = 0; n < count; n++)
        words[n + 1] = bytes[4 * n] << 24 | bytes[4 * n + 1] << 16 | bytes[4 * n + 2] << 8 | bytes[4 * n + 3];
    return count + 1;
}

/* The call that the command line asks for. How many words. */
static int request(const char *what, const char *argument, afs_int32 *words)
{
    int count;
    words[1] = atoi(argument);
    words[2] = READ_WRITE;
    if (!strcmp(what, "group")) {
        words[0] = NEW_ENTRY;
        count = 1 + name_words(argument, words + 1);
        words[count] = GROUP;
        words[count + 1] = 0;
        return count + 2;
    }
    words[0] = strcmp(what, "lock") ? RELEASE_LOCK : SET_LOCK;
    words[3] = strcmp(what, "lock") ? RELEASE_ALL : VOLUME_OPERATION;
    return 4;
}

int main(int argc, char **argv)
{
    struct ktc_encryptionKey key;
    struct rx_securityClass *security;
    struct rx_connection *connection;
    krb5_data data;
    afs_int32 words[NAME_WORDS + 4];
    int status, is_group = argc == 6 && !strcmp(argv[4], "group");
    if (argc != 6 || (!is_group && strcmp(argv[4], "lock") && strcmp(argv[4], "unlock")) ||
        strlen(argv[5]) >= 4 * NAME_WORDS) {
        fprintf(stderr, "usage: %s HOST CELL LEVEL lock|unlock VOLUME | group NAME\n", argv[0]);
        return 2;
    }
    if ((status = ticket(argv[2], &data, &key)))
        return status;
    if (data.length > TICKET_MAX || rx_Init(0))
        return fail(NULL, "rx_Init", 0);
    security = rxkad_NewClientSecurityObject(atoi(argv[3]), &key, KERBEROS_5, data.length, data.data);
    connection = rx_NewConnection(inet_addr(argv[1]), htons(is_group ? PT_PORT : PORT),
                                  is_group ? PT_SERVICE : SERVICE, security, SECURITY);
    status = ask(connection, words, request(argv[4], argv[5], words));
    printf("{\"error\": %d}\n", status);
    return status != 0;
}
