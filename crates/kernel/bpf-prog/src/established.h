/* SPDX-License-Identifier: Apache-2.0
 *
 * Live connections. One look-up lets an established segment pass; after a change
 * a second one judges the connection again.
 */
#ifndef TRIREME_ESTABLISHED_H
#define TRIREME_ESTABLISHED_H

#include "egress_segment.h"
#include "ingress_segment.h"

#define REASON_POLICY_CHANGED 405

/* A late duplicate of the proof, recognised by its MAC. */
static __always_inline int is_duplicate_proof(struct __sk_buff *skb, struct packet *p,
					      struct connection *c)
{
	struct scratch *s = take_scratch();
	union tap *tap;

	if (p->seq != c->proof_seq || p->payload_len < TAP_HEADER || c->class != CLASS_IDENTITY || !s)
		return 0;
	tap = &s->tap;
	if (p->payload_len == TAP_HEADER)
		return read_tap(skb, p, tap, TAP_ACK) && same(tap->mac, words(c->proof_mac));
	if (bpf_skb_load_bytes(skb, p->payload_offset, tap, TAP_HEADER))
		return 0;
	return tap->magic == bpf_htonl(TAP_MAGIC) && tap->kind == TAP_ACK &&
	       same(tap->mac, words(c->proof_mac));
}

static __noinline enum answer repeated_proof(struct __sk_buff *skb, struct packet *p, struct pu *pu,
					     struct punt_case *why)
{
	enum answer answer = may_be_proof(skb, p) ? pass_bare(skb, p, pu, 0, COUNT_PROOF_REPEATED) : ASK;

	return answer == ASK ? ask(why, PUNT_PROOF_DUPLICATE) : answer;
}

static __always_inline void touch(struct connection *c, __u32 bytes, __u32 hook)
{
	__u64 now = bpf_ktime_get_coarse_ns();

	if (c->last_seen != now)
		c->last_seen = now;
	if (hook == HOOK_FROM_PU) {
		__sync_fetch_and_add(&c->packets_from, 1);
		__sync_fetch_and_add(&c->bytes_from, bytes);
	} else {
		__sync_fetch_and_add(&c->packets_to, 1);
		__sync_fetch_and_add(&c->bytes_to, bytes);
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

/* What lies in the map moves to the table, which forgets by itself. */
static __noinline int bury(struct punt_case *why, struct connection *c)
{
	__u64 boot = bpf_ktime_get_boot_ns(), closing = flow_tag(why->hash) | STATE_CLOSING, word;
	struct entry *e = look_up(why->key, why->hash, flow_tag(why->hash), &word);
	__u32 seat = 0, own = e && exchange(e, word, STATE_BUSY);

	if (!own)
		e = new_entry(boot, &seat);
	if (!e)
		return 0;
	e->key = *why->key;
	e->bucket = why->hash & bucket_mask;
	e->attached = HANDED_OVER;
	e->until = 0;
	e->connection = *c;
	if (own) {
		__sync_lock_test_and_set(&e->word, closing);
		retag(e->bucket, closing & HASH, 0, CLOSING_TAG);
	}
	if (own || publish(e, seat | CLOSING_TAG, closing, boot))
		bpf_map_delete_elem(&connections, why->key);
	return 0;
}

/* It may be written over from here on. */
static __noinline int close_connection(struct punt_case *why, struct pu *pu, struct connection *c)
{
	struct entry *home = why->home;

	tell_end(why->key, pu, c, c->flags & FLAG_ENDED ? HAPPENED_TRAFFIC : HAPPENED_END);
	c->flags |= FLAG_ENDED;
	if (!home)
		return bury(why, c);
	if (exchange(home, why->home_word, (why->home_word & HASH) | STATE_CLOSING))
		retag(home->bucket, why->home_word & HASH, 0, CLOSING_TAG);
	return 0;
}

/* A segment of the unit's brings a closing connection back. */
static __noinline int reopen(struct punt_case *why)
{
	struct entry *home = why->home;

	if (home && exchange(home, why->home_word, (why->home_word & HASH) | STATE_CONNECTION))
		retag(home->bucket, why->home_word & HASH, CLOSING_TAG, 0);
	return 0;
}

/* Judged under another policy: by the verdict in force, else by the engine. */
static __noinline enum answer judge_again(struct pu *pu, struct connection *c,
					  struct punt_case *why)
{
	struct place peer = { .slot = c->peer_slot, .generation = c->peer_generation };
	struct flow_key *flow = why->key;
	__be16 port = judged_port(flow, c);
	struct verdict *verdict;
	struct moment now;

	if (c->class == CLASS_ADOPTED)
		return PASSED;
	verdict = c->class == CLASS_IDENTITY ?
			  verdict_of(pu, c->peer_slot, c->peer_generation, port, direction_of(c)) :
			  0;
	if (!verdict || (verdict->reason && pu->flags & PU_KEEP))
		return ask(why, PUNT_STALE_EPOCH);
	if (!verdict->reason) {
		c->epoch = pu->epoch;
		count(pu->slot, COUNT_REJUDGED);
		return PASSED;
	}
	look_at_clock(&now, pu);
	tell(flow, &now, direction_of(c), port, &peer, REASON_POLICY_CHANGED, verdict->rule);
	if (!(why->flags & PUNT_CLOSING))
		close_connection(why, pu, c);
	count(pu->slot, COUNT_CUT);
	return DROPPED;
}

static __always_inline enum answer to_pu_segment(struct __sk_buff *skb, struct packet *p,
						 struct pu *pu, struct connection *c,
						 struct punt_case *why)
{
	if (is_duplicate_proof(skb, p, c))
		return repeated_proof(skb, p, pu, why);
	if (!(c->flags & FLAG_CONFIRMED))
		__sync_fetch_and_or(&c->flags, FLAG_CONFIRMED);
	return PASSED;
}

static __always_inline enum answer from_pu_segment(struct __sk_buff *skb, struct packet *p,
						   struct pu *pu, struct connection *c,
						   struct punt_case *why)
{
	if (c->flags & FLAG_CONFIRMED || p->flags & TCP_RST)
		return PASSED;
	if (p->payload_len == 0 && !(p->flags & TCP_FIN))
		return prove(skb, p, pu, c, why);
	if (p->seq == c->proof_seq &&
	    __sync_fetch_and_or(&c->flags, FLAG_DATA_SEEN) & FLAG_DATA_SEEN)
		return prove(skb, p, pu, c, why);
	return PASSED;
}

static __always_inline enum answer established(struct __sk_buff *skb, struct packet *p,
					       struct pu *pu, const __u32 hook,
					       struct connection *c, struct punt_case *why)
{
	enum answer answer = PASSED;

	if (!(p->flags & (TCP_ACK | TCP_RST)))
		return ask(why, PUNT_ODD_FLAGS);
	if (c->epoch != pu->epoch)
		answer = judge_again(pu, c, why);
	if (answer == PASSED)
		answer = hook == HOOK_TO_PU ? to_pu_segment(skb, p, pu, c, why) :
					      from_pu_segment(skb, p, pu, c, why);
	if (answer != PASSED)
		return answer;
	touch(c, p->ip_len, hook);
	if (closes(c, p, hook)) {
		if (!(why->flags & PUNT_CLOSING))
			close_connection(why, pu, c);
	} else if (why->flags & PUNT_CLOSING && hook == HOOK_FROM_PU) {
		reopen(why);
	}
	return PASSED;
}

#endif
