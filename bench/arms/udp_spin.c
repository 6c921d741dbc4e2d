/* A round trip through the kernel's UDP at its best for latency: both ends poll sockets that never block.
 *
 *   udp_spin echo ADDRESS PORT SECONDS
 *   udp_spin ping ADDRESS PORT ROUNDS     one datagram at a time; the median round trip, as one line of JSON
 */
#include <arpa/inet.h>
#include <sys/socket.h>

#define ARM "udp_spin"
#include "pings.h"

/* Bytes of data in a frame of 60. */
enum { LEN = 18 };

static void echo(int fd, double seconds) {
  char data[2048];
  double until = now() + seconds;
  for (unsigned turn = 0; turn % 1024 || now() < until; turn++) {
    struct sockaddr_in from;
    socklen_t len = sizeof from;
    ssize_t n = recvfrom(fd, data, sizeof data, MSG_DONTWAIT, (void *)&from, &len);
    if (n > 0) sendto(fd, data, n, MSG_DONTWAIT, (void *)&from, len);
  }
}

static void ping(int fd, int rounds) {
  expect_pings(rounds);
  for (int round = 0; round < rounds + pings.warm; round++) {
    char data[LEN] = {0}, back[LEN];
    memcpy(data, &round, sizeof round);
    double begun = now(), came = 0;
    must(send(fd, data, sizeof data, 0) == LEN, "send");
    while (!came && now() < begun + 0.1)
      if (recv(fd, back, sizeof back, MSG_DONTWAIT) == LEN && !memcmp(back, data, LEN)) came = now();
    count_ping(round, begun, came);
  }
  report_pings(rounds);
}

int main(int argc, char **argv) {
  must(argc == 5, "usage: udp_spin echo|ping ADDRESS PORT SECONDS|ROUNDS");
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(atoi(argv[3]))};
  must(inet_pton(AF_INET, argv[2], &address.sin_addr) == 1, argv[2]);
  int fd = socket(AF_INET, SOCK_DGRAM, 0);
  must(fd >= 0, "socket");
  if (!strcmp(argv[1], "echo")) {
    must(!bind(fd, (void *)&address, sizeof address), "bind");
    fprintf(stderr, "ready\n");
    echo(fd, atof(argv[4]));
  } else {
    must(!connect(fd, (void *)&address, sizeof address), "connect");
    ping(fd, atoi(argv[4]));
  }
  return 0;
}
