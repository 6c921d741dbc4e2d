/* DPDK's rte_rcu_qsbr as an anchor of `cargo lab bench rcu`: the read side, the quiescent state, the grace period.
 *
 * usage: rcu_rte read CPU[,CPU]         ns per read: an acquire load of the pointer and a load through it; a quiescent state
 *                                       every 1024 reads
 *        rcu_rte quiescent CPU[,CPU]    ns per rte_rcu_qsbr_quiescent
 *        rcu_rte grace WRITER READER    rte_rcu_qsbr_synchronize on one CPU while a reader on another reads and is quiescent in turn
 */
#include "measure.h"
#include <stdbool.h>
#include "grace.h"

#include <rte_rcu_qsbr.h>

static uint64_t seven = 7;
static uint64_t *shared = &seven;
static struct rte_rcu_qsbr *domain;

static void *enter(int index)
{
    rte_rcu_qsbr_thread_register(domain, (unsigned)index);
    rte_rcu_qsbr_thread_online(domain, (unsigned)index);
    return (void *)(uintptr_t)index;
}

static void leave(void *thread)
{
    rte_rcu_qsbr_thread_offline(domain, (unsigned)(uintptr_t)thread);
    rte_rcu_qsbr_thread_unregister(domain, (unsigned)(uintptr_t)thread);
}

static uint64_t read_n(void *thread, uint64_t n)
{
    unsigned id = (unsigned)(uintptr_t)thread;
    uint64_t sum = 0;
    while (n > 0) {
        uint64_t burst = n < 1024 ? n : 1024, i;
        for (i = 0; i < burst; i++) {
            rte_rcu_qsbr_lock(domain, id);
            sum += *__atomic_load_n(&shared, __ATOMIC_ACQUIRE);
            rte_rcu_qsbr_unlock(domain, id);
        }
        rte_rcu_qsbr_quiescent(domain, id);
        n -= burst;
    }
    return sum;
}

static uint64_t quiescent_n(void *thread, uint64_t n)
{
    unsigned id = (unsigned)(uintptr_t)thread;
    uint64_t i;
    for (i = 0; i < n; i++)
        rte_rcu_qsbr_quiescent(domain, id);
    return n;
}

static void synchronize(void)
{
    rte_rcu_qsbr_synchronize(domain, RTE_QSBR_THRID_INVALID);
}

int main(int argc, char **argv)
{
    /* It needs memory and no EAL. */
    size_t bytes = rte_rcu_qsbr_get_memsize(THREADS_MAX);
    domain = aligned_alloc(RTE_CACHE_LINE_SIZE, RTE_ALIGN(bytes, RTE_CACHE_LINE_SIZE));
    if (!domain || rte_rcu_qsbr_init(domain, THREADS_MAX))
        return 3;
    return run_rcu(argc, argv, enter, read_n, quiescent_n, leave, synchronize);
}
