/* The anchor of the socket table: DPDK's rte_hash with as many entries, looked up in bursts of 32.
 *
 * As bench/micro's `lookup`: PAIRS plain sockets (local address and port) and as many connected ones (peer's besides) are in one table.
 * Keys are 16 bytes: addresses and ports, the peer's zero for plain ones. A datagram of a connected socket is found by its whole key; one
 * of a plain socket is looked for by its whole key first, in vain, and then by its local half. Keys are made from a list of random
 * numbers while the burst is prepared, on either side. Unlike ours the hash (CRC) has no secret.
 *
 * usage: hash_rte PAIRS CPU  prints one JSON object, ns of CPU time per datagram: hot (32 flows over and over), cold (random flows out of all)
 */
#include "measure.h"

#include <rte_eal.h>
#include <rte_hash.h>
#include <rte_hash_crc.h>

enum { BURST = 32, LOCALS = 64, LOOKUPS = 1 << 19, ROUNDS = 5 };

struct key {
    uint32_t local, peer;
    uint16_t local_port, peer_port;
    uint32_t zero;
};

static struct rte_hash *table;
static uint32_t *numbers;

static inline struct key plain_key(uint32_t n)
{
    struct key key = {0x0a000001 + n % LOCALS, 0, (uint16_t)(n / LOCALS + 1), 0, 0};
    return key;
}

static inline struct key connected_key(uint32_t n)
{
    struct key key = plain_key(n);
    key.peer = 0x0a800000 | n;
    key.peer_port = 7000;
    return key;
}

static inline struct key strangers_key(uint32_t n)
{
    struct key key = plain_key(n);
    key.peer = 0x0ac80001;
    key.peer_port = 9;
    return key;
}

static uint64_t connected_burst(const uint32_t *n)
{
    struct key keys[BURST];
    const void *pointers[BURST];
    void *found[BURST];
    uint64_t hits, sum = 0;
    int i;
    for (i = 0; i < BURST; i++) {
        keys[i] = connected_key(n[i]);
        pointers[i] = &keys[i];
    }
    if (rte_hash_lookup_bulk_data(table, pointers, BURST, &hits, found) != BURST)
        abort();
    for (i = 0; i < BURST; i++)
        sum += (uintptr_t)found[i];
    return sum;
}

static uint64_t plain_burst(const uint32_t *n)
{
    struct key keys[BURST];
    const void *pointers[BURST];
    void *found[BURST];
    uint64_t hits, sum = 0;
    int i;
    for (i = 0; i < BURST; i++) {
        keys[i] = strangers_key(n[i]);
        pointers[i] = &keys[i];
    }
    if (rte_hash_lookup_bulk_data(table, pointers, BURST, &hits, found) != 0)
        abort();
    for (i = 0; i < BURST; i++)
        keys[i] = plain_key(n[i]);
    if (rte_hash_lookup_bulk_data(table, pointers, BURST, &hits, found) != BURST)
        abort();
    for (i = 0; i < BURST; i++)
        sum += (uintptr_t)found[i];
    return sum;
}

/* ns per datagram: the median of some rounds, after one of warm-up. `distinct` flows are used. */
static double look_up(uint64_t (*burst)(const uint32_t *), uint32_t distinct)
{
    double ns[ROUNDS];
    volatile uint64_t sink = 0;
    uint64_t random = 42;
    int i, round;
    for (i = 0; i < LOOKUPS; i++) {
        random = random * 6364136223846793005u + 1442695040888963407u;
        numbers[i] = (uint32_t)((random >> 32) * distinct >> 32);
    }
    for (round = -1; round < ROUNDS; round++) {
        double begun = cpu_ns();
        for (i = 0; i < LOOKUPS; i += BURST)
            sink += burst(numbers + i);
        if (round >= 0)
            ns[round] = (cpu_ns() - begun) / LOOKUPS;
    }
    return median(ns, ROUNDS);
}

int main(int argc, char **argv)
{
    char lcores[16];
    char *eal[] = {argv[0], "--no-huge", "--no-pci", "--no-shconf", "--no-telemetry", "--log-level=error", "-m", "512",
                   "--lcores", lcores};
    uint32_t pairs, n;
    double hot_plain, hot_connected, cold_plain, cold_connected;
    if (argc != 3)
        return 2;
    pairs = (uint32_t)atoi(argv[1]);
    snprintf(lcores, sizeof lcores, "0@%d", atoi(argv[2]));
    if (rte_eal_init(sizeof eal / sizeof *eal, eal) < 0)
        return 3;
    struct rte_hash_parameters parameters = {
        .name = "sockets", .entries = 2 * pairs + 1024, .key_len = sizeof(struct key), .hash_func = rte_hash_crc,
        .socket_id = SOCKET_ID_ANY, .extra_flag = RTE_HASH_EXTRA_FLAGS_EXT_TABLE,
    };
    table = rte_hash_create(&parameters);
    numbers = malloc(LOOKUPS * sizeof *numbers);
    if (!table || !numbers)
        return 3;
    for (n = 0; n < pairs; n++) {
        struct key plain = plain_key(n), connected = connected_key(n);
        if (rte_hash_add_key_data(table, &plain, (void *)(uintptr_t)(2 * n + 1)) ||
            rte_hash_add_key_data(table, &connected, (void *)(uintptr_t)(2 * n + 2)))
            return 4;
    }
    hot_plain = look_up(plain_burst, 32), hot_connected = look_up(connected_burst, 32);
    cold_plain = look_up(plain_burst, pairs), cold_connected = look_up(connected_burst, pairs);
    printf("{\"hot_plain_ns\":%.2f,\"hot_connected_ns\":%.2f,\"cold_plain_ns\":%.2f,\"cold_connected_ns\":%.2f}\n", hot_plain,
           hot_connected, cold_plain, cold_connected);
    return 0;
}
