/* The anchor of the buffer cycle: DPDK's rte_mempool (packet buffers) and rte_ring on one core, in bursts of 32.
 *
 * One cycle: take a buffer from the pool, write 64 bytes, put it through a single-producer single-consumer ring, read,
 * give it back. pmd's example `buffer_cycle` does the same with its own pool and ring, and reports the same figures.
 *
 * usage: buffer_cycle [LCORES]  prints one JSON object: the median of 9 rounds, the best and the worst by the clock, and the median
 *                               of CPU time. LCORES is for EAL: 0@3 is CPU 3; 0 if not given
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <rte_eal.h>
#include <rte_mbuf.h>
#include <rte_ring.h>

enum { BURST = 32, FRAME = 64, BUFFERS = 4095, CACHE = 256, SLOTS = 1024, BURSTS = 200000, ROUNDS = 9 };

static struct rte_mempool *pool;
static struct rte_ring *ring;

static unsigned char cycle(unsigned char tag)
{
    struct rte_mbuf *burst[BURST];
    unsigned char pattern[FRAME], sum = 0;
    unsigned i;
    memset(pattern, tag, FRAME);
    if (rte_pktmbuf_alloc_bulk(pool, burst, BURST))
        abort();
    for (i = 0; i < BURST; i++) {
        char *data = rte_pktmbuf_append(burst[i], FRAME);
        if (!data)
            abort();
        memcpy(data, pattern, FRAME);
    }
    if (rte_ring_sp_enqueue_burst(ring, (void **)burst, BURST, NULL) != BURST)
        abort();
    if (rte_ring_sc_dequeue_burst(ring, (void **)burst, BURST, NULL) != BURST)
        abort();
    for (i = 0; i < BURST; i++)
        sum += rte_pktmbuf_mtod(burst[i], volatile unsigned char *)[FRAME - 1];
    rte_pktmbuf_free_bulk(burst, BURST);
    return sum;
}

static double now(clockid_t clock)
{
    struct timespec time;
    clock_gettime(clock, &time);
    return time.tv_sec * 1e9 + time.tv_nsec;
}

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

int main(int argc, char **argv)
{
    char *eal[] = {argv[0], "--no-huge", "--no-pci", "--no-shconf", "--no-telemetry", "--log-level=error", "-m", "256",
                   "--lcores", argc > 1 ? argv[1] : "0"};
    double ns[ROUNDS], cpu_ns[ROUNDS];
    volatile unsigned char sum = 0;
    int round, burst;
    if (rte_eal_init(sizeof eal / sizeof *eal, eal) < 0)
        return 3;
    pool = rte_pktmbuf_pool_create("pool", BUFFERS, CACHE, 0, RTE_MBUF_DEFAULT_BUF_SIZE, SOCKET_ID_ANY);
    ring = rte_ring_create("ring", SLOTS, SOCKET_ID_ANY, RING_F_SP_ENQ | RING_F_SC_DEQ);
    if (!pool || !ring)
        return 3;
    for (round = 0; round < ROUNDS; round++) {
        double begun = now(CLOCK_MONOTONIC), cpu = now(CLOCK_THREAD_CPUTIME_ID);
        for (burst = 0; burst < BURSTS; burst++)
            sum += cycle((unsigned char)burst);
        cpu_ns[round] = (now(CLOCK_THREAD_CPUTIME_ID) - cpu) / ((double)BURSTS * BURST);
        ns[round] = (now(CLOCK_MONOTONIC) - begun) / ((double)BURSTS * BURST);
    }
    qsort(ns, ROUNDS, sizeof *ns, ascending);
    qsort(cpu_ns, ROUNDS, sizeof *cpu_ns, ascending);
    printf("{\"name\":\"buffer_cycle\",\"ns_per_packet\":%.3f,\"best\":%.3f,\"worst\":%.3f,\"cpu_ns_per_packet\":%.3f}\n",
           ns[ROUNDS / 2], ns[0], ns[ROUNDS - 1], cpu_ns[ROUNDS / 2]);
    return rte_eal_cleanup() ? 3 : 0;
}
