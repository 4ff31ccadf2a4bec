/* SPDX-License-Identifier: Apache-2.0
 *
 * Step 3: the connection that a segment belongs to, and one step per kind of
 * segment.
 */
#ifndef TRIREME_FLOW_H
#define TRIREME_FLOW_H

#include "egress_syn.h"
#include "egress_syn_ack.h"
#include "established.h"
#include "ingress_syn.h"
#include "ingress_syn_ack.h"

static __always_inline void key_of(struct flow_key *key, struct packet *p, __u32 slot, __u32 hook)
{
	key->unit = slot | IPPROTO_TCP << SLOT_BITS;
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

static __always_inline enum answer handshake(struct __sk_buff *skb, struct packet *p, struct pu *pu,
					     const __u32 hook, struct punt_case *why)
{
	enum answer answer;

	if (hook == HOOK_FROM_PU)
		answer = p->flags & TCP_ACK ? egress_syn_ack(skb, p, pu, why) :
					      egress_syn(skb, p, pu, why);
	else
		answer = p->flags & TCP_ACK ? ingress_syn_ack(skb, p, pu, why) :
					      ingress_syn(skb, p, pu, why);
	/* The engine wants to know what the table holds; not for strangers, who come in floods. */
	if (answer == ASK && why->reason != PUNT_UNKNOWN && !why->connection)
		find_connection(why);
	return answer;
}

/* Fills `why` where the segment goes to user space. */
static __always_inline enum answer flow(struct __sk_buff *skb, struct packet *p, struct pu *pu,
					const __u32 hook, struct punt_case *why)
{
	struct connection *c;

	key_of(why->key, p, pu->slot, hook);
	why->hash = hash_of(why->key, pu);
	if (p->flags & TCP_SYN)
		return handshake(skb, p, pu, hook, why);
	c = find_connection(why);
	if (c)
		return established(skb, p, pu, hook, c, why);
	return hook == HOOK_FROM_PU ? egress_unconnected(skb, p, pu, why) :
				      ingress_unconnected(skb, p, pu, why);
}

#endif
