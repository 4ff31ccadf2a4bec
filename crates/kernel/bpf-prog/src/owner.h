/* SPDX-License-Identifier: Apache-2.0
 *
 * Step 2: whose packet is it, and has user space released it already?
 */
#ifndef TRIREME_OWNER_H
#define TRIREME_OWNER_H

#include "maps.h"

static __always_inline struct pu *owner(struct __sk_buff *skb)
{
	__u32 key = edge_key ? edge_key : skb->ifindex, low = key & (NEAR - 1);
	struct pu *pu;

	if (!edge_key) {
		pu = bpf_map_lookup_elem(&near, &low);
		if (pu && pu->ifindex == key)
			return pu;
	}
	return bpf_map_lookup_elem(&pus, &key);
}

/* True once for every mark the injector set; the mark goes with it. */
static __always_inline int released(struct __sk_buff *skb)
{
	__u32 mark = skb->mark, index = mark & (TICKETS - 1);
	__u64 *ticket, expected;

	if (!mark)
		return 0;
	ticket = bpf_map_lookup_elem(&tickets, &index);
	if (!ticket)
		return 0;
	expected = ((__u64)skb->ifindex << 32) | mark;
	if (*ticket != expected || __sync_val_compare_and_swap(ticket, expected, 0) != expected)
		return 0;
	skb->mark = 0;
	return 1;
}

#endif
