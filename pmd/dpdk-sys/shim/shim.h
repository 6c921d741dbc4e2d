/*
 * What Rust needs of DPDK and cannot call: inline functions, once a burst; thread-local variables; a log stream.
 * And the layout of rte_mbuf as pmd's buffer header repeats it, which shim.c checks.
 */
#ifndef RXL_SHIM_H
#define RXL_SHIM_H

#include <stddef.h>
#include <stdint.h>
#include <rte_alarm.h>
#include <rte_dev.h>
#include <rte_eal.h>
#include <rte_errno.h>
#include <rte_ethdev.h>
#include <rte_lcore.h>
#include <rte_log.h>
#include <rte_mbuf.h>
#include <rte_mbuf_dyn.h>
#include <rte_memory.h>
#include <rte_mempool.h>

/* Offsets in rte_mbuf. */
#define RXL_MBUF_SIZE 128
#define RXL_MBUF_BUF_ADDR 0
#define RXL_MBUF_BUF_IOVA 8
#define RXL_MBUF_DATA_OFF 16
#define RXL_MBUF_REFCNT 18
#define RXL_MBUF_NB_SEGS 20
#define RXL_MBUF_PORT 22
#define RXL_MBUF_OL_FLAGS 24
#define RXL_MBUF_PACKET_TYPE 32
#define RXL_MBUF_PKT_LEN 36
#define RXL_MBUF_DATA_LEN 40
#define RXL_MBUF_VLAN_TCI 42
#define RXL_MBUF_HASH_RSS 44
#define RXL_MBUF_BUF_LEN 54
#define RXL_MBUF_POOL 56
#define RXL_MBUF_NEXT 64
#define RXL_MBUF_TX_OFFLOAD 72
#define RXL_MBUF_SHINFO 80
#define RXL_MBUF_PRIV_SIZE 88
#define RXL_MBUF_DYNFIELD1 92

/* Bits of rte_mbuf.tx_offload: the length of the link header, then that of the network header. */
#define RXL_L2_LEN_BITS 7
#define RXL_L3_LEN_BITS 9

/* Offloads, hash types and device flags, whose macros are expressions that bindgen does not evaluate. */
static const uint64_t RXL_RX_SCATTER = RTE_ETH_RX_OFFLOAD_SCATTER;
static const uint64_t RXL_RX_IPV4_CKSUM = RTE_ETH_RX_OFFLOAD_IPV4_CKSUM;
static const uint64_t RXL_RX_UDP_CKSUM = RTE_ETH_RX_OFFLOAD_UDP_CKSUM;
static const uint64_t RXL_RX_TCP_CKSUM = RTE_ETH_RX_OFFLOAD_TCP_CKSUM;
static const uint64_t RXL_RX_RSS_HASH = RTE_ETH_RX_OFFLOAD_RSS_HASH;
static const uint64_t RXL_TX_MULTI_SEGS = RTE_ETH_TX_OFFLOAD_MULTI_SEGS;
static const uint64_t RXL_TX_UDP_CKSUM = RTE_ETH_TX_OFFLOAD_UDP_CKSUM;
static const uint64_t RXL_TX_TCP_CKSUM = RTE_ETH_TX_OFFLOAD_TCP_CKSUM;
static const uint64_t RXL_RSS_IPV4 = RTE_ETH_RSS_IPV4 | RTE_ETH_RSS_FRAG_IPV4 | RTE_ETH_RSS_NONFRAG_IPV4_OTHER;
static const uint64_t RXL_RSS_IPV6 = RTE_ETH_RSS_IPV6 | RTE_ETH_RSS_FRAG_IPV6 | RTE_ETH_RSS_NONFRAG_IPV6_OTHER;
static const uint64_t RXL_RSS_TCP = RTE_ETH_RSS_NONFRAG_IPV4_TCP | RTE_ETH_RSS_NONFRAG_IPV6_TCP;
static const uint64_t RXL_RSS_UDP = RTE_ETH_RSS_NONFRAG_IPV4_UDP | RTE_ETH_RSS_NONFRAG_IPV6_UDP;
static const uint32_t RXL_DEV_INTR_LSC = RTE_ETH_DEV_INTR_LSC;
static const uint32_t RXL_DEV_INTR_RMV = RTE_ETH_DEV_INTR_RMV;

/* rte_eth_link_get_nowait: 1 up, 0 down, negative where it cannot be told; the speed in Mb/s, 0 where it has none. */
int rxl_link(uint16_t port, uint32_t *mbps);

/* rte_eth_rx_burst and rte_eth_tx_burst. */
uint16_t rxl_rx_burst(uint16_t port, uint16_t queue, struct rte_mbuf **mbufs, uint16_t n);
uint16_t rxl_tx_burst(uint16_t port, uint16_t queue, struct rte_mbuf **mbufs, uint16_t n);
/* rte_eth_rx_queue_count: received frames that wait; negative where the device cannot tell. */
int rxl_rx_queue_count(uint16_t port, uint16_t queue);

/* rte_errno of this thread. */
int rxl_errno(void);

/* The private area of a mempool. */
void *rxl_mempool_priv(struct rte_mempool *pool);

/* Sends what DPDK logs, in whole writes, to sink; 0, or -1 when there is no stream to be had. For the whole process. */
typedef void (*rxl_log_sink)(const char *text, size_t len);
int rxl_log_to(rxl_log_sink sink);

#endif
