/* What the arms that send one frame at a time share: the clock, errors, and the report of round trips.
 *
 * ARM is the program's name, for messages.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { PINGS_MAX = 1 << 20 };

static void must(int ok, const char *what) {
  if (!ok) {
    fprintf(stderr, ARM ": %s: %s\n", what, strerror(errno));
    exit(1);
  }
}

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec + t.tv_nsec / 1e9;
}

static struct {
  double took[PINGS_MAX];
  int warm, kept, lost;
} pings;

static void expect_pings(int rounds) {
  pings.warm = rounds / 10;
  must(rounds > 0 && rounds + pings.warm <= PINGS_MAX, "ROUNDS");
}

/* Round trip `round` began and came back then; 0: it did not. */
static void count_ping(int round, double begun, double came) {
  if (!came) must(++pings.lost < 100, "nobody answers");
  else if (round >= pings.warm) pings.took[pings.kept++] = came - begun;
}

static int ascending(const void *a, const void *b) {
  double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

static void report_pings(int rounds) {
  double *took = pings.took;
  int kept = pings.kept;
  must(kept > rounds / 2, "too many round trips were lost");
  qsort(took, kept, sizeof *took, ascending);
  printf("{\"us\":%.3f,\"p99_us\":%.3f,\"lost\":%d}\n", took[kept / 2] * 1e6, took[kept * 99 / 100] * 1e6, pings.lost);
}
