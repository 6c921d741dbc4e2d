/* Tickets for rxkad in the form of Kerberos 4, made with the service's own DES key: the kernel's DES seals them. */
#include <arpa/inet.h>
#include <linux/if_alg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#ifndef SOL_ALG
#define SOL_ALG 279
#endif

/* A life of 127 is that many times five minutes. */
enum { DES_KEY = 8, TICKET_ROOM = 64, TICKET_LIFE = 127 };

static void fail(const char *what)
{
    perror(what);
    exit(1);
}

static unsigned number_from(const char *variable, unsigned otherwise)
{
    return getenv(variable) ? strtoul(getenv(variable), NULL, 10) : otherwise;
}

/* The key in RXKAD_KEY, 16 hexadecimal digits. 0: there is none. */
static int service_key(unsigned char key[DES_KEY])
{
    const char *hex = getenv("RXKAD_KEY");
    if (!hex)
        return 0;
    for (int i = 0; i < DES_KEY; i++) {
        if (strlen(hex) != 2 * DES_KEY || sscanf(hex + 2 * i, "%2hhx", &key[i]) != 1) {
            fprintf(stderr, "RXKAD_KEY is not %d hexadecimal digits: %s\n", 2 * DES_KEY, hex);
            exit(2);
        }
    }
    return 1;
}

/* DES in PCBC mode, with the key as the vector too. */
static void seal(const unsigned char key[DES_KEY], unsigned char *bytes, size_t len)
{
    struct sockaddr_alg cipher = {.salg_family = AF_ALG, .salg_type = "skcipher", .salg_name = "pcbc(des)"};
    union {
        char bytes[CMSG_SPACE(sizeof(uint32_t)) + CMSG_SPACE(sizeof(struct af_alg_iv) + DES_KEY)];
        struct cmsghdr align;
    } room = {0};
    struct iovec data = {bytes, len};
    struct msghdr message = {.msg_iov = &data, .msg_iovlen = 1, .msg_control = &room, .msg_controllen = sizeof room};
    uint32_t operation = ALG_OP_ENCRYPT, vector_len = DES_KEY;

    struct cmsghdr *at = CMSG_FIRSTHDR(&message);
    *at = (struct cmsghdr){CMSG_LEN(sizeof operation), SOL_ALG, ALG_SET_OP};
    memcpy(CMSG_DATA(at), &operation, sizeof operation);
    at = (struct cmsghdr *)(room.bytes + CMSG_SPACE(sizeof operation));
    *at = (struct cmsghdr){CMSG_LEN(sizeof(struct af_alg_iv) + DES_KEY), SOL_ALG, ALG_SET_IV};
    memcpy(CMSG_DATA(at), &vector_len, sizeof vector_len);
    memcpy(CMSG_DATA(at) + sizeof vector_len, key, DES_KEY);

    int fd = socket(AF_ALG, SOCK_SEQPACKET, 0);
    if (fd < 0 || bind(fd, (struct sockaddr *)&cipher, sizeof cipher) || setsockopt(fd, SOL_ALG, ALG_SET_KEY, key, DES_KEY))
        fail("AF_ALG pcbc(des)");
    int work = accept(fd, NULL, NULL);
    if (work < 0 || sendmsg(work, &message, 0) != (ssize_t)len || read(work, bytes, len) != (ssize_t)len)
        fail("seal a ticket");
    close(work);
    close(fd);
}

/* A ticket that has been good for `age` seconds, and the new session key in it. Returns the ticket's length. */
static size_t make_ticket(unsigned char ticket[TICKET_ROOM], unsigned char session[DES_KEY],
                          const unsigned char key[DES_KEY], unsigned age)
{
    /* Flags: numbers are big-endian; name, instance, realm; an address. */
    static const unsigned char head[] = {0, 'g', 'u', 'e', 's', 't', 0, 0, 0, 0, 0, 0, 0};
    static const unsigned char service[] = {'a', 'f', 's', 0, 0};
    uint32_t issued = htonl(time(NULL) - age);
    size_t len = 0;
    if (getrandom(session, DES_KEY, 0) != DES_KEY)
        fail("getrandom");
    memset(ticket, 0, TICKET_ROOM);
    memcpy(ticket, head, sizeof head);
    len += sizeof head;
    memcpy(ticket + len, session, DES_KEY);
    len += DES_KEY;
    ticket[len++] = TICKET_LIFE;
    memcpy(ticket + len, &issued, sizeof issued);
    len += sizeof issued;
    memcpy(ticket + len, service, sizeof service);
    len += sizeof service;
    len = (len + DES_KEY - 1) / DES_KEY * DES_KEY;
    seal(key, ticket, len);
    return len;
}
