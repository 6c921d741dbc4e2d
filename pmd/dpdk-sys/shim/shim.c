#define _GNU_SOURCE
#include <stdio.h>
#include <sys/types.h>

#include "shim.h"

#define AT(field, offset) \
	_Static_assert(offsetof(struct rte_mbuf, field) == (offset), "rte_mbuf." #field " is not where pmd's header has it")

_Static_assert(sizeof(struct rte_mbuf) == RXL_MBUF_SIZE, "rte_mbuf has another size than pmd's header");
AT(buf_addr, RXL_MBUF_BUF_ADDR);
AT(buf_iova, RXL_MBUF_BUF_IOVA);
AT(data_off, RXL_MBUF_DATA_OFF);
AT(refcnt, RXL_MBUF_REFCNT);
AT(nb_segs, RXL_MBUF_NB_SEGS);
AT(port, RXL_MBUF_PORT);
AT(ol_flags, RXL_MBUF_OL_FLAGS);
AT(packet_type, RXL_MBUF_PACKET_TYPE);
AT(pkt_len, RXL_MBUF_PKT_LEN);
AT(data_len, RXL_MBUF_DATA_LEN);
AT(vlan_tci, RXL_MBUF_VLAN_TCI);
AT(hash.rss, RXL_MBUF_HASH_RSS);
AT(buf_len, RXL_MBUF_BUF_LEN);
AT(pool, RXL_MBUF_POOL);
AT(next, RXL_MBUF_NEXT);
AT(tx_offload, RXL_MBUF_TX_OFFLOAD);
AT(shinfo, RXL_MBUF_SHINFO);
AT(priv_size, RXL_MBUF_PRIV_SIZE);
AT(dynfield1, RXL_MBUF_DYNFIELD1);
_Static_assert(RTE_MBUF_L2_LEN_BITS == RXL_L2_LEN_BITS && RTE_MBUF_L3_LEN_BITS == RXL_L3_LEN_BITS,
	       "the header lengths in tx_offload have other widths");

uint16_t rxl_rx_burst(uint16_t port, uint16_t queue, struct rte_mbuf **mbufs, uint16_t n)
{
	return rte_eth_rx_burst(port, queue, mbufs, n);
}

uint16_t rxl_tx_burst(uint16_t port, uint16_t queue, struct rte_mbuf **mbufs, uint16_t n)
{
	return rte_eth_tx_burst(port, queue, mbufs, n);
}

int rxl_rx_queue_count(uint16_t port, uint16_t queue)
{
	return rte_eth_rx_queue_count(port, queue);
}

int rxl_link(uint16_t port, uint32_t *mbps)
{
	struct rte_eth_link link = { 0 };
	int error = rte_eth_link_get_nowait(port, &link);

	*mbps = 0;
	if (error != 0)
		return error;
	if (link.link_speed != RTE_ETH_SPEED_NUM_UNKNOWN)
		*mbps = link.link_speed;
	return link.link_status == RTE_ETH_LINK_UP;
}

int rxl_errno(void)
{
	return rte_errno;
}

void *rxl_mempool_priv(struct rte_mempool *pool)
{
	return rte_mempool_get_priv(pool);
}

static rxl_log_sink log_sink;

static ssize_t log_write(void *cookie, const char *text, size_t len)
{
	(void)cookie;
	log_sink(text, len);
	return (ssize_t)len;
}

int rxl_log_to(rxl_log_sink sink)
{
	log_sink = sink;
	cookie_io_functions_t functions = { .write = log_write };
	FILE *stream = fopencookie(NULL, "w", functions);

	if (stream == NULL)
		return -1;
	return rte_openlog_stream(stream);
}
