// SPDX-License-Identifier: Apache-2.0
/*
 * The programs on a PU's edge, in the engine's order: parse, owner, flow (find
 * it, authenticate, authorize, rewrite, record), verdict. from_pu sees what the PU sends, to_pu what it is about to receive;
 * inject stands on the far end of the agent's private veth pair.
 *
 * No GPL-only helper is used: the licence string below is the whole truth.
 */
#include "orders.h"
#include "short.h"

char _license[] SEC("license") = "Apache-2.0";

/* Functions of their own: what is not called takes no stack from what is. */
static __noinline int punt_from_pu(struct __sk_buff *skb, struct packet *p, struct pu *pu,
				   struct punt_case *why)
{
	return punt(skb, p, pu, HOOK_FROM_PU, why);
}

static __noinline int punt_to_pu(struct __sk_buff *skb, struct packet *p, struct pu *pu,
				 struct punt_case *why)
{
	return punt(skb, p, pu, HOOK_TO_PU, why);
}

static __always_inline int edge(struct __sk_buff *skb, const __u32 hook)
{
	struct scratch *s = take_scratch();
	struct punt_case why = {};
	struct packet *p;
	struct pu *pu;

	pu = owner(skb);
	if (!pu || !s)
		return drop(SLOT_NONE, COUNT_NO_OWNER);
	if (released(skb)) {
		count(pu->slot, COUNT_REINJECTED);
		return PASS;
	}
	if (pu->mode == MODE_OFF)
		return PASS;
	why.key = &s->key;
	p = &s->packet;
	p->family = 0;
	p->flags = 0;
	p->plain = 0;
	p->usual = 0;
	p->payload_len = 0;
	switch (parse(skb, p)) {
	case KIND_TCP:
		switch (flow(skb, p, pu, hook, &why)) {
		case PASSED:
			return PASS;
		case DROPPED:
			/* Towards a local sender a drop would look like congestion. */
			return hook == HOOK_FROM_PU ? consume() : DROP;
		case ASK:
			break;
		}
		break;
	case KIND_FRAGMENT:
		why.reason = PUNT_FRAGMENT;
		break;
	case KIND_MALFORMED:
		why.reason = PUNT_MALFORMED;
		break;
	case KIND_ICMP_ERROR:
		why.reason = PUNT_ICMP_ERROR;
		break;
	case KIND_NEIGHBOUR:
		return PASS;
	case KIND_ROUTER:
		if (hook == HOOK_FROM_PU)
			return drop(pu->slot, COUNT_ROUTER_SPOOF);
		return PASS;
	case KIND_OTHER:
		if (pu->other != OTHER_ALLOW)
			return drop(pu->slot, COUNT_OTHER_PROTOCOL);
		count(pu->slot, COUNT_OTHER_ALLOWED);
		return PASS;
	case KIND_VLAN:
		return drop(pu->slot, COUNT_VLAN);
	case KIND_NOT_IP:
		return drop(pu->slot, COUNT_NOT_IP);
	case KIND_TRUNCATED:
		return drop(pu->slot, COUNT_TRUNCATED);
	}
	return hook == HOOK_FROM_PU ? punt_from_pu(skb, p, pu, &why) : punt_to_pu(skb, p, pu, &why);
}

static __noinline int long_way_from_pu(struct __sk_buff *skb)
{
	return edge(skb, HOOK_FROM_PU);
}

static __noinline int long_way_to_pu(struct __sk_buff *skb)
{
	return edge(skb, HOOK_TO_PU);
}

SEC("classifier")
int from_pu(struct __sk_buff *skb)
{
	return goes_on(skb, HOOK_FROM_PU) ? PASS : long_way_from_pu(skb);
}

SEC("classifier")
int to_pu(struct __sk_buff *skb)
{
	return goes_on(skb, HOOK_TO_PU) ? PASS : long_way_to_pu(skb);
}

/* Frames of the agent only: checks the secret, takes the trailer off, hands
 * out the one-time mark and puts the frame on the edge's ingress. */
SEC("classifier")
int inject(struct __sk_buff *skb)
{
	struct ticket ticket;
	__u32 len = skb->len, index;
	__u64 *slot;

	if (len < ETH_HLEN + sizeof(ticket) ||
	    bpf_skb_load_bytes(skb, len - sizeof(ticket), &ticket, sizeof(ticket)) ||
	    ticket.secret[0] != inject_secret[0] || ticket.secret[1] != inject_secret[1])
		return drop(SLOT_NONE, COUNT_FORGED);
	index = ticket.mark & (TICKETS - 1);
	slot = bpf_map_lookup_elem(&tickets, &index);
	if (!slot || bpf_skb_change_tail(skb, len - sizeof(ticket), 0))
		return drop(SLOT_NONE, COUNT_FORGED);
	*slot = ((__u64)ticket.ifindex << 32) | ticket.mark;
	skb->mark = ticket.mark;
	return bpf_redirect(ticket.ifindex, BPF_F_INGRESS);
}

/* For tests, which run the vectors of the specification through it: the frame
 * carries a key, a header, and the receiver's token and nonce; the MAC takes
 * the place of the key. Attached nowhere. */
SEC("classifier")
int mac_of(struct __sk_buff *skb)
{
	struct {
		__u64 key[2];
		union tap tap;
		__u64 token[2];
		__u64 nonce[2];
	} input;
	__u64 mac[2];

	if (bpf_skb_load_bytes(skb, ETH_HLEN, &input, sizeof(input)))
		return DROP;
	tap_mac(mac, input.key, input.tap.word, input.token, input.nonce);
	return bpf_skb_store_bytes(skb, ETH_HLEN, mac, sizeof(mac), 0) ? DROP : PASS;
}
