/* Grace periods as the writer sees them, while one reader is busy on a CPU of its own. Include after measure.h. */
enum { GRACES_MAX = 20000, GRACES_WARM_UP = 500 };
#define GRACE_SECONDS 0.5

static struct {
    int cpu;
    atomic_bool ready, stop;
    void *(*enter)(int index);
    body run;
    void (*leave)(void *thread);
} busy;

static void *be_busy(void *argument)
{
    volatile uint64_t sink = 0;
    void *thread;
    (void)argument;
    pin_to(busy.cpu);
    thread = busy.enter(0);
    atomic_store(&busy.ready, true);
    while (!atomic_load_explicit(&busy.stop, memory_order_relaxed))
        sink += busy.run(thread, 1);
    busy.leave(thread);
    return NULL;
}

/* `writer` and `reader` are CPUs; `run` is one read section and one quiescent state. Prints p50 and p99 in ns. */
static void measure_grace(const char *writer, const char *reader, void *(*enter)(int), body run, void (*leave)(void *),
                          void (*synchronize)(void))
{
    static double ns[GRACES_MAX];
    pthread_t thread;
    size_t count = 0;
    double begun;
    int i;
    busy.cpu = atoi(reader), busy.enter = enter, busy.run = run, busy.leave = leave;
    pin_to(atoi(writer));
    if (pthread_create(&thread, NULL, be_busy, NULL))
        exit(3);
    while (!atomic_load(&busy.ready))
        sched_yield();
    for (i = 0; i < GRACES_WARM_UP; i++)
        synchronize();
    begun = now_ns();
    while (count < GRACES_MAX && now_ns() - begun < GRACE_SECONDS * 1e9) {
        double before = now_ns();
        synchronize();
        ns[count++] = now_ns() - before;
    }
    atomic_store(&busy.stop, true);
    pthread_join(thread, NULL);
    qsort(ns, count, sizeof *ns, ascending);
    printf("{\"p50_ns\":%.1f,\"p99_ns\":%.1f,\"worst_ns\":%.1f,\"count\":%zu}\n", ns[count / 2], ns[count * 99 / 100],
           ns[count - 1], count);
}

/* The command line that both flavours of RCU have: see the usage of either. The exit code. */
static int run_rcu(int argc, char **argv, void *(*enter)(int), body read_n, body quiescent_n, void (*leave)(void *),
                   void (*synchronize)(void))
{
    if (argc == 3 && !strcmp(argv[1], "read"))
        printf("{\"ns\":%.4f}\n", measure(argv[2], enter, read_n, leave));
    else if (argc == 3 && !strcmp(argv[1], "quiescent"))
        printf("{\"ns\":%.4f}\n", measure(argv[2], enter, quiescent_n, leave));
    else if (argc == 4 && !strcmp(argv[1], "grace"))
        measure_grace(argv[2], argv[3], enter, read_n, leave, synchronize);
    else
        return 2;
    return 0;
}
