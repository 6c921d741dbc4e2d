/* liburcu's quiescent-state flavour as an anchor of `cargo lab bench rcu`: the read side, the quiescent state, the grace period.
 *
 * usage: rcu_urcu read CPU[,CPU]         ns per read: rcu_read_lock, rcu_dereference, a load through it, rcu_read_unlock;
 *                                        a quiescent state every 1024 reads
 *        rcu_urcu quiescent CPU[,CPU]    ns per rcu_quiescent_state
 *        rcu_urcu grace WRITER READER    synchronize_rcu on one CPU while a reader on another reads and is quiescent in turn
 */
#include "measure.h"
#include <stdbool.h>
#include "grace.h"

#define _LGPL_SOURCE
#include <urcu-qsbr.h>

static uint64_t seven = 7;
static uint64_t *shared = &seven;

static void *enter(int index)
{
    (void)index;
    rcu_register_thread();
    return NULL;
}

static void leave(void *thread)
{
    (void)thread;
    rcu_unregister_thread();
}

static uint64_t read_n(void *thread, uint64_t n)
{
    uint64_t sum = 0;
    (void)thread;
    while (n > 0) {
        uint64_t burst = n < 1024 ? n : 1024, i;
        for (i = 0; i < burst; i++) {
            rcu_read_lock();
            sum += *rcu_dereference(shared);
            rcu_read_unlock();
        }
        rcu_quiescent_state();
        n -= burst;
    }
    return sum;
}

static uint64_t quiescent_n(void *thread, uint64_t n)
{
    uint64_t i;
    (void)thread;
    for (i = 0; i < n; i++)
        rcu_quiescent_state();
    return n;
}

static void synchronize(void)
{
    synchronize_rcu();
}

int main(int argc, char **argv)
{
    return run_rcu(argc, argv, enter, read_n, quiescent_n, leave, synchronize);
}
