/* SPDX-License-Identifier: Apache-2.0
 *
 * What user space asks of the programs' table: it has no way in of its own, so that
 * no change of its can meet one of theirs.
 */
#ifndef TRIREME_ORDERS_H
#define TRIREME_ORDERS_H

#include "handshake.h"

struct walk {
	__u32 kind;
	__u32 from;
	__u32 unit;
	__u32 left; /* live connections that stay */
	__u64 before;
};

static long look_at(__u32 index, struct walk *w)
{
	struct entry *e = entry_at(w->from + index);
	__u64 word;
	__u32 state;

	if (!e)
		return 1;
	word = e->word;
	state = state_of(word);
	if (state <= STATE_BUSY)
		return 0;
	if (w->kind == ORDER_UNIT) {
		if (e->key.unit == w->unit)
			forget(e, word);
		return 0;
	}
	if (state != STATE_CONNECTION)
		return 0;
	if (e->connection.last_seen < w->before && settle(e, word))
		vacate(e, word);
	else
		w->left++;
	return 0;
}

static long expect_settled(__u32 index, struct walk *w __attribute__((unused)))
{
	struct bucket *b = bucket_of(index);

	if (!b)
		return 1;
	b->settled = 1;
	return 0;
}

/* Non-zero: there is such a connection. */
static __always_inline int held_of_flow(struct __sk_buff *skb, struct order *order)
{
	struct pu *pu = bpf_map_lookup_elem(&pus, &order->edge);
	struct bucket *b;
	struct entry *e;
	__u64 hash, word;
	__u32 state;

	if (!pu)
		return 0;
	hash = hash_of(&order->key, pu);
	b = bucket_of(hash & bucket_mask);
	e = look_up(&order->key, hash, flow_tag(hash), &word);
	state = e ? state_of(word) : STATE_FREE;
	if (order->kind == ORDER_READ)
		return e && state == STATE_CONNECTION &&
		       !bpf_skb_store_bytes(skb, ETH_HLEN + offsetof(struct order, held),
					    &e->connection, sizeof(e->connection), 0);
	if (b)
		b->settled = 1;
	return e && state >= STATE_CONNECTION && forget(e, word) && state == STATE_CONNECTION;
}

/* Attached nowhere. Returns how many connections stay, or whether there is the one. */
SEC("classifier")
int take_order(struct __sk_buff *skb)
{
	struct order order;
	struct walk w = {};

	if (bpf_skb_load_bytes(skb, ETH_HLEN, &order, offsetof(struct order, held)))
		return -1;
	if (order.kind <= ORDER_YIELD)
		return held_of_flow(skb, &order);
	w.kind = order.kind;
	w.from = order.from;
	w.unit = order.key.unit;
	w.before = order.before;
	if (order.kind == ORDER_SETTLED)
		bpf_loop(order.count, expect_settled, &w, 0);
	else
		bpf_loop(order.count, look_at, &w, 0);
	return w.left;
}

#endif
