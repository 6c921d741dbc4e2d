/* What the anchors of `cargo lab bench rcu` share: threads pinned to CPUs, batches of about 10 ms of CPU time, medians.
 *
 * CPU time and not the clock's, so that a thread that is made to wait does not seem slow.
 * bench/micro/src/measure.rs does the same for the arms in Rust.
 */
#define _GNU_SOURCE
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { BATCHES = 9, THREADS_MAX = 8 };
#define BATCH_NS 10e6

/* Does `n` of what is measured; returns something that depends on all of it. */
typedef uint64_t (*body)(void *thread, uint64_t n);

struct worker {
    pthread_t thread;
    int cpu;
    double ns;
};

static struct {
    int threads;
    body run;
    void *(*enter)(int index);
    void (*leave)(void *thread);
    pthread_barrier_t begin;
    atomic_int done;
    struct worker workers[THREADS_MAX];
} measured;

static double clock_ns(clockid_t clock)
{
    struct timespec time;
    clock_gettime(clock, &time);
    return time.tv_sec * 1e9 + time.tv_nsec;
}

static inline double now_ns(void)
{
    return clock_ns(CLOCK_MONOTONIC);
}

static inline double cpu_ns(void)
{
    return clock_ns(CLOCK_THREAD_CPUTIME_ID);
}

static void pin_to(int cpu)
{
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(cpu, &set);
    if (pthread_setaffinity_np(pthread_self(), sizeof set, &set)) {
        fprintf(stderr, "cannot run on CPU %d\n", cpu);
        exit(2);
    }
}

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(double *figures, size_t count)
{
    qsort(figures, count, sizeof *figures, ascending);
    return figures[count / 2];
}

static void *work(void *argument)
{
    struct worker *worker = argument;
    double ns[BATCHES];
    volatile uint64_t sink = 0;
    uint64_t n = 1000;
    int batch;
    void *thread;
    pin_to(worker->cpu);
    thread = measured.enter((int)(worker - measured.workers));
    pthread_barrier_wait(&measured.begin);
    /* Warm-up: finds out how many fill a batch while the others run too. */
    for (;;) {
        double begun = cpu_ns(), took;
        sink += measured.run(thread, n);
        took = cpu_ns() - begun;
        if (took >= BATCH_NS)
            break;
        n = took * 8 < BATCH_NS ? n * 4 : (uint64_t)(n * (BATCH_NS / took) * 1.1) + 1;
    }
    for (batch = 0; batch < BATCHES; batch++) {
        double begun = cpu_ns();
        sink += measured.run(thread, n);
        ns[batch] = (cpu_ns() - begun) / (double)n;
    }
    worker->ns = median(ns, BATCHES);
    /* The others are measured against us to their end. */
    atomic_fetch_add(&measured.done, 1);
    while (atomic_load(&measured.done) < measured.threads)
        sink += measured.run(thread, n / 16 + 1);
    measured.leave(thread);
    return NULL;
}

/* One thread on each CPU named in `cpus` ("0" or "0,1"), all at once. The mean over the threads of each one's median, ns. */
__attribute__((unused)) static double measure(const char *cpus, void *(*enter)(int), body run, void (*leave)(void *))
{
    double sum = 0;
    int i;
    measured.enter = enter, measured.run = run, measured.leave = leave;
    for (; *cpus && measured.threads < THREADS_MAX; cpus += strspn(cpus, ",")) {
        char *end;
        measured.workers[measured.threads++].cpu = (int)strtol(cpus, &end, 10);
        if (end == cpus)
            exit(2);
        cpus = end;
    }
    pthread_barrier_init(&measured.begin, NULL, (unsigned)measured.threads);
    for (i = 0; i < measured.threads; i++)
        if (pthread_create(&measured.workers[i].thread, NULL, work, &measured.workers[i]))
            exit(3);
    for (i = 0; i < measured.threads; i++) {
        pthread_join(measured.workers[i].thread, NULL);
        sum += measured.workers[i].ns;
    }
    return sum / measured.threads;
}
