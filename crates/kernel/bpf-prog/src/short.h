/* SPDX-License-Identifier: Apache-2.0
 *
 * The short way of what most segments are: with a plain header, of a connection that
 * was judged under the policy in force, neither its proof nor its end. Whatever is not
 * decided here goes the long way (established.h); the two agree.
 */
#ifndef TRIREME_SHORT_H
#define TRIREME_SHORT_H

#include "flow.h"
#include "owner.h"

static __always_inline int glance_ports(struct glance *g, struct tcp_head *tcp, __u32 header,
					const __u32 hook)
{
	header += (tcp->offset >> 4) * 4;
	if ((tcp->flags & (TCP_SYN | TCP_RST | TCP_ACK)) != TCP_ACK || tcp->offset >> 4 < 5 ||
	    header > g->ip_len)
		return 0;
	g->key.local_port = hook == HOOK_FROM_PU ? tcp->src : tcp->dst;
	g->key.remote_port = hook == HOOK_FROM_PU ? tcp->dst : tcp->src;
	g->payload_len = g->ip_len - header;
	g->seq = bpf_ntohl(tcp->seq);
	g->ack = bpf_ntohl(tcp->ack);
	g->fin = tcp->flags & TCP_FIN;
	return 1;
}

static __always_inline int glance_at(struct __sk_buff *skb, struct glance *g, const __u32 hook)
{
	void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
	struct ethhdr *ethernet = data;
	struct iphdr *v4 = data + L3;
	struct ipv6hdr *v6 = data + L3;

	if (data + L3 + sizeof(*v4) + sizeof(struct tcp_head) > end)
		return 0;
	if (ethernet->h_proto == bpf_htons(ETH_P_IP)) {
		g->ip_len = bpf_ntohs(v4->tot_len);
		if (*(__u8 *)v4 != 0x45 || v4->protocol != IPPROTO_TCP ||
		    v4->frag_off & bpf_htons(0x3fff) || g->ip_len > skb->len - L3)
			return 0;
		map_v4(g->key.local, hook == HOOK_FROM_PU ? v4->saddr : v4->daddr);
		map_v4(g->key.remote, hook == HOOK_FROM_PU ? v4->daddr : v4->saddr);
		return glance_ports(g, (void *)(v4 + 1), sizeof(*v4), hook);
	}
	if (ethernet->h_proto != bpf_htons(ETH_P_IPV6) ||
	    data + L3 + sizeof(*v6) + sizeof(struct tcp_head) > end)
		return 0;
	g->ip_len = bpf_ntohs(v6->payload_len) + sizeof(*v6);
	if (v6->version != 6 || v6->nexthdr != IPPROTO_TCP || !v6->payload_len ||
	    g->ip_len > skb->len - L3)
		return 0;
	__builtin_memcpy(g->key.local, hook == HOOK_FROM_PU ? &v6->saddr : &v6->daddr, 16);
	__builtin_memcpy(g->key.remote, hook == HOOK_FROM_PU ? &v6->daddr : &v6->saddr, 16);
	return glance_ports(g, (void *)(v6 + 1), sizeof(*v6), hook);
}

/* A segment of the unit's whose proof may be due. */
static __always_inline int needs_proof(struct connection *c, struct glance *g)
{
	if (!g->payload_len && !g->fin)
		return 1;
	return g->seq == c->proof_seq &&
	       __sync_fetch_and_or(&c->flags, FLAG_DATA_SEEN) & FLAG_DATA_SEEN;
}

/* The first FIN of the two; the second one ends the connection. */
static __always_inline int half_closes(struct connection *c, struct glance *g, const __u32 hook)
{
	if (c->flags & (hook == HOOK_FROM_PU ? FLAG_FIN_TO : FLAG_FIN_FROM))
		return 0;
	if (hook == HOOK_TO_PU)
		c->fin_to = g->seq + g->payload_len + 1;
	__sync_fetch_and_or(&c->flags, hook == HOOK_FROM_PU ? FLAG_FIN_FROM : FLAG_FIN_TO);
	return 1;
}

/* Non-zero: the segment passes, and is counted. */
static __always_inline int goes_on(struct __sk_buff *skb, const __u32 hook)
{
	const __u32 both = FLAG_FIN_FROM | FLAG_FIN_TO;
	struct scratch *s = take_scratch();
	struct connection *c;
	struct glance *g;
	struct entry *e;
	struct pu *pu;
	__u64 hash, word;
	__u32 flags;

	if (!s || skb->mark || skb->vlan_present)
		return 0;
	g = &s->glance;
	if (!glance_at(skb, g, hook))
		return 0;
	pu = owner(skb);
	if (!pu || pu->mode != MODE_ENFORCE)
		return 0;
	g->key.unit = pu->slot | IPPROTO_TCP << SLOT_BITS;
	hash = hash_of(&g->key, pu);
	e = find(&g->key, hash, flow_tag(hash), &word);
	if (!e)
		return 0;
	c = &e->connection;
	flags = c->flags;
	if (c->epoch != pu->epoch)
		return 0;
	if (state_of(word) == STATE_CLOSING) {
		/* The unit's last acknowledgement; anything else of its brings the connection back. */
		if (hook == HOOK_FROM_PU && ((flags & both) != both || g->fin || g->payload_len ||
					     g->ack != c->fin_to))
			return 0;
	} else if (state_of(word) != STATE_CONNECTION || (flags & both) == both) {
		return 0;
	}
	if (hook == HOOK_TO_PU && g->seq == c->proof_seq && g->payload_len >= TAP_HEADER)
		return 0;
	if (!(flags & FLAG_CONFIRMED)) {
		if (hook == HOOK_FROM_PU && needs_proof(c, g))
			return 0;
		if (hook == HOOK_TO_PU)
			__sync_fetch_and_or(&c->flags, FLAG_CONFIRMED);
	}
	if (g->fin && !half_closes(c, g, hook))
		return 0;
	touch(c, g->ip_len, hook);
	return 1;
}

#endif
