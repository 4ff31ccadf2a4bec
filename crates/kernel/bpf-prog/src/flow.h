/* SPDX-License-Identifier: Apache-2.0
 *
 * Step 3: the connection table. One look-up lets an established segment pass;
 * everything it does not answer goes to user space.
 */
#ifndef TRIREME_FLOW_H
#define TRIREME_FLOW_H

#include "verdict.h"

/* Payload of a proof: magic and version, kind 3, the MAC at offset 40. */
struct proof_head {
	__be32 magic;
	__u8 kind;
	__u8 rest[35];
	__u64 mac[2];
};
_Static_assert(sizeof(struct proof_head) == 56, "proof_head");
#define TAP_MAGIC 0x54415001
#define TAP_KIND_ACK 3
#define TAP_HEADER 80

static __always_inline int is_duplicate_proof(struct __sk_buff *skb, struct packet *p,
					      struct connection *c)
{
	struct proof_head head;
	__u64 *expected = (__u64 *)c->proof_mac;

	if (p->seq != c->proof_seq || p->payload_len < TAP_HEADER || c->class != CLASS_IDENTITY)
		return 0;
	if (bpf_skb_load_bytes(skb, p->payload_offset, &head, sizeof(head)))
		return 0;
	return head.magic == bpf_htonl(TAP_MAGIC) && head.kind == TAP_KIND_ACK &&
	       head.mac[0] == expected[0] && head.mac[1] == expected[1];
}

static __always_inline void key_of(struct flow_key *key, struct packet *p, __u32 slot, __u32 hook)
{
	key->slot = slot;
	if (hook == HOOK_FROM_PU) {
		key->local_port = p->src_port;
		key->remote_port = p->dst_port;
		__builtin_memcpy(key->local, p->src, 16);
		__builtin_memcpy(key->remote, p->dst, 16);
	} else {
		key->local_port = p->dst_port;
		key->remote_port = p->src_port;
		__builtin_memcpy(key->local, p->dst, 16);
		__builtin_memcpy(key->remote, p->src, 16);
	}
}

static __always_inline void touch(struct connection *c, struct packet *p, __u32 hook)
{
	__u64 now = bpf_ktime_get_coarse_ns();

	if (c->last_seen != now)
		c->last_seen = now;
	if (hook == HOOK_FROM_PU) {
		__sync_fetch_and_add(&c->packets_from, 1);
		__sync_fetch_and_add(&c->bytes_from, p->ip_len);
	} else {
		__sync_fetch_and_add(&c->packets_to, 1);
		__sync_fetch_and_add(&c->bytes_to, p->ip_len);
	}
}

/* Does this segment put the connection into the closing table, or keep it
 * there? A reset does, and the second of the two FINs: a half-closed
 * connection may go on for hours and stays live. So does the PU's
 * acknowledgement of the peer's FIN behind its own; a blind FIN is never
 * acknowledged, so it cannot keep a live connection there. */
static __always_inline int closes(struct connection *c, struct packet *p, __u32 hook)
{
	const __u32 both = FLAG_FIN_FROM | FLAG_FIN_TO;

	if (p->flags & TCP_FIN) {
		if (hook == HOOK_FROM_PU) {
			__sync_fetch_and_or(&c->flags, FLAG_FIN_FROM);
		} else {
			c->fin_to = p->seq + p->payload_len + 1;
			__sync_fetch_and_or(&c->flags, FLAG_FIN_TO);
		}
	}
	if (p->flags & TCP_RST)
		return 1;
	if ((c->flags & both) != both)
		return 0;
	return p->flags & TCP_FIN || (p->payload_len == 0 && p->ack == c->fin_to);
}

/* Non-zero: the segment goes to user space for this reason. */
static __always_inline __u32 doubt(struct __sk_buff *skb, struct packet *p, struct pu *pu,
				   struct connection *c, __u32 hook)
{
	if (c->epoch != pu->epoch)
		return PUNT_STALE_EPOCH;
	if (hook == HOOK_TO_PU) {
		if (is_duplicate_proof(skb, p, c))
			return PUNT_PROOF_DUPLICATE;
		if (!(c->flags & FLAG_CONFIRMED))
			__sync_fetch_and_or(&c->flags, FLAG_CONFIRMED);
		return 0;
	}
	if (c->flags & FLAG_CONFIRMED || p->flags & TCP_RST)
		return 0;
	if (p->payload_len == 0 && !(p->flags & TCP_FIN))
		return PUNT_UNCONFIRMED;
	if (p->seq == c->proof_seq &&
	    __sync_fetch_and_or(&c->flags, FLAG_DATA_SEEN) & FLAG_DATA_SEEN)
		return PUNT_UNCONFIRMED;
	return 0;
}

/* Fills `why` where the segment goes to user space. */
static __always_inline void flow(struct __sk_buff *skb, struct packet *p, struct pu *pu, __u32 hook,
				 struct punt_case *why)
{
	struct connection *c;
	struct flow_key key __attribute__((aligned(8)));
	__u32 closed = 0;

	key_of(&key, p, pu->slot, hook);
	c = bpf_map_lookup_elem(&connections, &key);
	if (!c) {
		c = bpf_map_lookup_elem(&closing, &key);
		closed = c ? PUNT_CLOSING : 0;
	}
	why->connection = c;
	why->flags = closed;
	if (p->flags & TCP_SYN)
		why->reason = PUNT_SYN;
	else if (!c)
		why->reason = PUNT_MISS;
	else if (!(p->flags & (TCP_ACK | TCP_RST)))
		why->reason = PUNT_ODD_FLAGS;
	else
		why->reason = doubt(skb, p, pu, c, hook);
	if (why->reason || !c)
		return;
	touch(c, p, hook);
	if (closes(c, p, hook)) {
		if (!closed && !bpf_map_update_elem(&closing, &key, c, BPF_ANY))
			bpf_map_delete_elem(&connections, &key);
	} else if (closed && hook == HOOK_FROM_PU) {
		/* A full table leaves the entry where it is: it still passes. */
		if (!bpf_map_update_elem(&connections, &key, c, BPF_NOEXIST))
			bpf_map_delete_elem(&closing, &key);
	}
}

#endif
