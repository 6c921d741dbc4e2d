// AF_XDP with nothing in between: the least that a program has to do to receive, to send, to send back and to measure a round trip.
//
//   xdp_bare rx    IFACE SECONDS    counts what arrives
//   xdp_bare tx    IFACE SECONDS    sends 60-byte frames as fast as it can
//   xdp_bare flood IFACE SECONDS    sends, and counts what comes back
//   xdp_bare echo  IFACE SECONDS    sends everything back, addresses swapped
//   xdp_bare ping  IFACE ROUNDS     one frame at a time, spinning; the median round trip
//
// One queue, copy mode, a program that takes every frame, attached in the driver by a link. Everything is one burst of 32 at a time.
// Says "ready" once its socket is bound, and ends with one line of JSON.
#define _GNU_SOURCE
#include <linux/bpf.h>
#include <linux/if_xdp.h>
#include <net/if.h>
#include <stdint.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#define ARM "xdp_bare"
#include "pings.h"

enum { FRAMES = 8192, CHUNK = 2048, RING = 2048, BURST = 32, LEN = 60 };

struct ring {
  uint32_t *producer, *consumer, *flags;
  void *entries;
  uint32_t ours, theirs;
};

static struct ring rx, tx, fill, done;
static uint8_t *umem;
static int sock;
static uint64_t spare[FRAMES];
static uint32_t spares;

static int bpf(int command, union bpf_attr *attr) { return syscall(SYS_bpf, command, attr, sizeof *attr); }

static uint32_t load(uint32_t *at) { return __atomic_load_n(at, __ATOMIC_ACQUIRE); }
static void store(uint32_t *at, uint32_t value) { __atomic_store_n(at, value, __ATOMIC_RELEASE); }

static struct ring map_ring(uint64_t pgoff, struct xdp_ring_offset *at, size_t entry) {
  uint8_t *base = mmap(0, at->desc + RING * entry, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, sock, pgoff);
  must(base != MAP_FAILED, "mmap of a ring");
  return (struct ring){(void *)(base + at->producer), (void *)(base + at->consumer), (void *)(base + at->flags),
                       base + at->desc, 0, 0};
}

// Returns the link: the program is attached while it is open.
static int attach(int ifindex, int map) {
  struct bpf_insn code[] = {
      {.code = BPF_LDX | BPF_MEM | BPF_W, .dst_reg = 2, .src_reg = 1, .off = 16},
      {.code = BPF_LD | BPF_DW | BPF_IMM, .dst_reg = 1, .src_reg = BPF_PSEUDO_MAP_FD, .imm = map},
      {0},
      {.code = BPF_ALU64 | BPF_MOV | BPF_K, .dst_reg = 3, .imm = XDP_PASS},
      {.code = BPF_JMP | BPF_CALL, .imm = BPF_FUNC_redirect_map},
      {.code = BPF_JMP | BPF_EXIT},
  };
  union bpf_attr prog = {.prog_type = BPF_PROG_TYPE_XDP,
                         .insns = (uintptr_t)code,
                         .insn_cnt = sizeof code / sizeof *code,
                         .license = (uintptr_t)"MIT",
                         .expected_attach_type = BPF_XDP};
  int fd = bpf(BPF_PROG_LOAD, &prog);
  must(fd >= 0, "loading the program");
  union bpf_attr link = {0};
  link.link_create.prog_fd = fd;
  link.link_create.target_ifindex = ifindex;
  link.link_create.attach_type = BPF_XDP;
  link.link_create.flags = 1 << 2; // XDP_FLAGS_DRV_MODE
  int result = bpf(BPF_LINK_CREATE, &link);
  must(result >= 0, "attaching the program");
  return result;
}

static void open_socket(const char *name) {
  int ifindex = if_nametoindex(name);
  must(ifindex > 0, name);
  union bpf_attr create = {.map_type = BPF_MAP_TYPE_XSKMAP, .key_size = 4, .value_size = 4, .max_entries = 1};
  int map = bpf(BPF_MAP_CREATE, &create);
  must(map >= 0, "making the map");
  attach(ifindex, map);
  umem = mmap(0, FRAMES * CHUNK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
  must(umem != MAP_FAILED, "memory");
  sock = socket(AF_XDP, SOCK_RAW, 0);
  must(sock >= 0, "socket");
  struct xdp_umem_reg reg = {.addr = (uintptr_t)umem, .len = FRAMES * CHUNK, .chunk_size = CHUNK};
  must(!setsockopt(sock, SOL_XDP, XDP_UMEM_REG, &reg, sizeof reg), "XDP_UMEM_REG");
  int entries = RING, sizes[] = {XDP_UMEM_FILL_RING, XDP_UMEM_COMPLETION_RING, XDP_RX_RING, XDP_TX_RING};
  for (int i = 0; i < 4; i++) must(!setsockopt(sock, SOL_XDP, sizes[i], &entries, sizeof entries), "ring size");
  int buffer = 8 << 20;
  setsockopt(sock, SOL_SOCKET, SO_SNDBUFFORCE, &buffer, sizeof buffer);
  struct xdp_mmap_offsets at;
  socklen_t len = sizeof at;
  must(!getsockopt(sock, SOL_XDP, XDP_MMAP_OFFSETS, &at, &len), "XDP_MMAP_OFFSETS");
  rx = map_ring(XDP_PGOFF_RX_RING, &at.rx, sizeof(struct xdp_desc));
  tx = map_ring(XDP_PGOFF_TX_RING, &at.tx, sizeof(struct xdp_desc));
  fill = map_ring(XDP_UMEM_PGOFF_FILL_RING, &at.fr, 8);
  done = map_ring(XDP_UMEM_PGOFF_COMPLETION_RING, &at.cr, 8);
  struct sockaddr_xdp address = {.sxdp_family = AF_XDP, .sxdp_flags = XDP_COPY | XDP_USE_NEED_WAKEUP, .sxdp_ifindex = ifindex};
  double begun = now();
  while (bind(sock, (void *)&address, sizeof address)) must(errno == EBUSY && now() < begun + 2, "bind");
  uint32_t queue = 0;
  union bpf_attr update = {.map_fd = map, .key = (uintptr_t)&queue, .value = (uintptr_t)&sock};
  must(!bpf(BPF_MAP_UPDATE_ELEM, &update), "adding the socket to the map");
  for (uint64_t i = 0; i < RING; i++) ((uint64_t *)fill.entries)[i] = i * CHUNK;
  store(fill.producer, fill.ours = RING);
  for (uint64_t i = RING; i < FRAMES; i++) spare[spares++] = i * CHUNK;
}

// The frames that wait, BURST at most. Their buffers are the caller's.
static int receive(struct xdp_desc *out) {
  uint32_t ready = rx.theirs - rx.ours;
  if (!ready) ready = (rx.theirs = load(rx.producer)) - rx.ours;
  if (ready > BURST) ready = BURST;
  for (uint32_t i = 0; i < ready; i++) out[i] = ((struct xdp_desc *)rx.entries)[(rx.ours + i) & (RING - 1)];
  if (ready) store(rx.consumer, rx.ours += ready);
  return ready;
}

// Gives the kernel a buffer to receive into for each that came.
static void refill(int n) {
  for (int i = 0; i < n && spares; i++) ((uint64_t *)fill.entries)[fill.ours++ & (RING - 1)] = spare[--spares];
  if (n) store(fill.producer, fill.ours);
}

static void reap(void) {
  uint32_t produced = load(done.producer);
  if (produced == done.ours) return;
  while (done.ours != produced) spare[spares++] = ((uint64_t *)done.entries)[done.ours++ & (RING - 1)] / CHUNK * CHUNK;
  store(done.consumer, done.ours);
}

static int room(int n) {
  if (RING - (tx.ours - tx.theirs) < (uint32_t)n) tx.theirs = load(tx.consumer);
  return RING - (tx.ours - tx.theirs) >= (uint32_t)n;
}

static void put(uint64_t addr, uint32_t len) {
  ((struct xdp_desc *)tx.entries)[tx.ours++ & (RING - 1)] = (struct xdp_desc){addr, len, 0};
}

static void flush(void) {
  store(tx.producer, tx.ours);
  if (*(volatile uint32_t *)tx.flags & XDP_RING_NEED_WAKEUP) sendto(sock, 0, 0, MSG_DONTWAIT, 0, 0);
}

static void send_burst(void) {
  reap();
  if (!room(BURST) || spares < BURST) return flush();
  for (int i = 0; i < BURST; i++) {
    uint64_t addr = spare[--spares] + 256;
    memset(umem + addr, 2, LEN);
    put(addr, LEN);
  }
  flush();
}

static void swap(uint8_t *frame) {
  uint8_t to[6];
  memcpy(to, frame, 6);
  memcpy(frame, frame + 6, 6);
  memcpy(frame + 6, to, 6);
}

static void ping(int rounds) {
  struct xdp_desc got[BURST];
  expect_pings(rounds);
  for (int round = 0; round < rounds + pings.warm; round++) {
    reap();
    uint64_t addr = spare[--spares] + 256;
    memset(umem + addr, 2, LEN);
    memcpy(umem + addr + 14, &round, sizeof round);
    put(addr, LEN);
    double begun = now(), came = 0;
    flush();
    while (!came && now() < begun + 0.1) {
      int n = receive(got);
      for (int i = 0; i < n; i++) {
        if (got[i].len == LEN && !memcmp(umem + got[i].addr + 14, &round, sizeof round)) came = now();
        spare[spares++] = got[i].addr / CHUNK * CHUNK;
      }
      refill(n);
    }
    count_ping(round, begun, came);
  }
  report_pings(rounds);
}

int main(int argc, char **argv) {
  must(argc == 4, "usage: xdp_bare rx|tx|flood|echo|ping IFACE SECONDS|ROUNDS");
  int receives = strcmp(argv[1], "tx"), sends = strcmp(argv[1], "rx"), echoes = !strcmp(argv[1], "echo");
  open_socket(argv[2]);
  fprintf(stderr, "ready\n");
  if (!strcmp(argv[1], "ping")) {
    ping(atoi(argv[3]));
    return 0;
  }
  // The first second does not count.
  double seconds = atof(argv[3]), begun = now(), from = begun + 1, at = begun;
  uint64_t received = 0, sent = 0, received_before = 0, sent_before = 0;
  for (int turn = 0; at < from + seconds; turn++) {
    struct xdp_desc got[BURST];
    int n = receives ? receive(got) : 0;
    received += n;
    if (echoes) {
      reap();
      while (n && !room(n)) flush(), reap();
      for (int i = 0; i < n; i++) {
        swap(umem + got[i].addr);
        put(got[i].addr, got[i].len);
      }
      if (n) flush();
      sent += n;
    } else {
      for (int i = 0; i < n; i++) spare[spares++] = got[i].addr / CHUNK * CHUNK;
      if (sends) {
        uint32_t before = tx.ours;
        send_burst();
        sent += tx.ours - before;
      }
    }
    refill(n);
    if (turn % 32 == 0) {
      at = now();
      if (at < from) received_before = received, sent_before = sent;
    }
  }
  double span = at - from;
  printf("{\"mpps\":%.4f,\"sent_mpps\":%.4f}\n", (receives ? received - received_before : sent - sent_before) / span / 1e6,
         (sent - sent_before) / span / 1e6);
  return 0;
}
