/* SPDX-License-Identifier: Apache-2.0
 *
 * A unit opens a connection: attach its identity (kind 1).
 */
#ifndef TRIREME_EGRESS_SYN_H
#define TRIREME_EGRESS_SYN_H

#include "handshake.h"

/* Non-zero: the engine is asked for this reason. What was chosen lies in the scratch, as
 * values: pointers would be another state to the verifier for each choice. */
static __always_inline __u32 choose(struct pu *pu, struct destination *d, struct moment *now,
				    struct choice *choice)
{
	struct own *own;
	struct peer *peer;
	struct pair *pair;

	choice->has_mac = 0;
	choice->holds = 0;
	if (is_zero(words(d->peer))) {
		if (!is_current(&pu->own[0], now))
			return PUNT_SYN;
		take_own(choice, &pu->own[0]);
		return 0;
	}
	peer = peer_of(words(d->peer), now);
	if (!peer)
		return PUNT_SYN;
	own = choose_own(pu, peer->own_key, now);
	if (!own)
		return PUNT_SYN;
	if (!now->away && renews(pu, peer))
		return PUNT_RENEWAL;
	take_own(choice, own);
	choice->holds = same(words(d->own_token), words(own->token));
	pair = pair_of(own->key, peer->key, ROLE_INITIATOR);
	if (!pair)
		return PUNT_SYN;
	choice->has_mac = 1;
	copy(choice->mac_key, pair->initiator);
	return 0;
}

/* The message for the nonce and token in `o`. */
static __always_inline enum answer identify(struct __sk_buff *skb, struct packet *p, struct pu *pu,
					    struct opening *o, struct destination *d,
					    struct choice *choice, struct punt_case *why)
{
	const __u64 none[2] = { 0, 0 };
	struct own_token *own = 0;
	struct scratch *s = take_scratch();
	union tap *tap;
	enum edited edited;

	if (!s)
		return ask(why, PUNT_SYN);
	tap = &s->tap;
	if (!choice->holds) {
		own = bytes_of(o->own_token);
		if (!own)
			return ask(why, PUNT_SYN);
	}
	begin_tap(tap, TAP_SYN, choice->has_mac ? TAP_MAC : 0);
	if (own)
		attach_lengths(tap, own);
	copy(tap->token, words(o->own_token));
	copy(tap->nonce, words(o->own_nonce));
	tap->family = p->family;
	tap->protocol = IPPROTO_TCP;
	if (choice->has_mac)
		tap_mac(tap->mac, choice->mac_key, tap->word, words(d->peer), none);
	edited = append(skb, p, tap, own);
	if (edited == UNCHANGED)
		return ask(why, PUNT_SYN);
	if (edited == BROKEN)
		return DROPPED;
	return pass(pu, COUNT_FAST_SYN_FROM);
}

/* The first retransmission carries the whole token, the second asks the engine. */
static __always_inline enum answer identify_again(struct __sk_buff *skb, struct packet *p,
						  struct pu *pu, struct entry *e,
						  struct destination *d, struct scratch *s,
						  struct punt_case *why)
{
	struct choice *choice = &s->choice;
	struct opening *o = &e->opening;

	if (state_of(why->half_word) != STATE_SYN_SENT || o->syns != 1 ||
	    e->connection.epoch != pu->epoch || carries_other_options(skb, p) ||
	    choose(pu, d, &s->now, choice))
		return ask_opening(why);
	/* A backend behind a service whose agent is away may know the older token only. */
	if (!choice->has_mac && is_current(&pu->own[1], &s->now))
		take_own(choice, &pu->own[1]);
	if (choice->has_mac && !same(words(choice->token), words(o->own_token)))
		return ask_opening(why);
	copy((__u64 *)o->own_token, words(choice->token));
	copy((__u64 *)o->own_key, words(choice->key));
	o->syns = 2;
	e->attached = 1;
	choice->holds = 0;
	return identify(skb, p, pu, o, d, choice, why);
}

/* The agent that this handshake was handed to cannot go on with it. */
static __always_inline __u32 is_orphan(struct entry *e, struct moment *now)
{
	return now->away || e->attached != now->agent;
}

/* The entry for the unit's SYN, BUSY: its own of before, whatever it was, or a new one. */
static __always_inline struct entry *begin_opening(struct pu *pu, struct punt_case *why,
						   struct moment *now, __u32 *seat, __u32 *own)
{
	__u64 word;
	struct entry *e = look_up(why->key, why->hash, flow_tag(why->hash), &word);

	if (e && state_of(word) == STATE_CONNECTION)
		tell_end(why->key, pu, &e->connection, HAPPENED_END);
	*own = e && exchange(e, word, STATE_BUSY);
	return *own ? e : new_entry(now->boot, seat);
}

static __noinline enum answer egress_syn(struct __sk_buff *skb, struct packet *p, struct pu *pu,
					 struct punt_case *why)
{
	struct destination_key at = { .slot = pu->slot, .port = p->dst_port };
	__u64 word = flow_tag(why->hash) | STATE_SYN_SENT;
	__u32 reason, again = 0, seat = 0, own = 0;
	struct destination *d;
	struct choice *choice;
	struct scratch *s = take_scratch();
	struct moment *now;
	struct opening *o;
	struct entry *e;

	if (!s || !(pu->flags & PU_FAST) || !is_exactly(skb, p, TCP_SYN) || p->payload_len)
		return ask(why, PUNT_SYN);
	now = &s->now;
	choice = &s->choice;
	look_at_clock(now, pu);
	copy((__u64 *)at.address, words(p->dst));
	d = bpf_map_lookup_elem(&destinations, &at);
	e = opening_of(why);
	if (e && e->isn == p->seq) {
		if (state_of(why->half_word) != STATE_ELSEWHERE)
			return d && d->epoch == pu->epoch ?
				       identify_again(skb, p, pu, e, d, s, why) :
				       ask_opening(why);
		if (!is_orphan(e, now))
			return ask(why, PUNT_SYN);
		again = 1;
	}
	if (!d || d->epoch != pu->epoch)
		return ask(why, PUNT_SYN);
	if (carries_other_options(skb, p))
		return ask(why, PUNT_SYN);
	/* What an agent began that is gone goes on without asking the next. */
	now->away |= again;
	reason = choose(pu, d, now, choice);
	if (reason)
		return ask(why, reason);
	choice->holds &= !again;
	if (!within_quota(now, pu->slot, ROLE_INITIATOR, 1))
		return ask(why, PUNT_TABLE_FULL);
	e = begin_opening(pu, why, now, &seat, &own);
	if (!e) {
		give_back(now, pu->slot, ROLE_INITIATOR);
		return ask(why, PUNT_TABLE_FULL);
	}
	o = &e->opening;
	e->key = *why->key;
	e->bucket = why->hash & bucket_mask;
	e->until = now->boot / 1000000000ULL + OPENING_LIFE;
	e->isn = p->seq;
	e->attached = !choice->holds;
	e->connection.epoch = pu->epoch;
	o->syns = 1;
	o->hop_limit = p->hop_limit;
	o->traffic_class = p->traffic_class;
	copy((__u64 *)o->own_token, words(choice->token));
	copy((__u64 *)o->own_key, words(choice->key));
	o->tcp_len = load_tcp(skb, p, o->tcp);
	if (!o->tcp_len || make_nonce((__u64 *)o->own_nonce)) {
		give_back(now, pu->slot, ROLE_INITIATOR);
		/* Not findable, or found to be outlived. */
		__sync_lock_test_and_set(&e->word, STATE_FREE);
		return ask(why, PUNT_SYN);
	}
	if (own) {
		publish_again(e, word);
	} else if (!publish(e, seat, word, now->boot)) {
		give_back(now, pu->slot, ROLE_INITIATOR);
		return ask(why, PUNT_TABLE_FULL);
	}
	end_settled(why, pu);
	/* An entry that stays behind is of no use to anybody but the engine, which replaces it. */
	return identify(skb, p, pu, o, d, choice, why);
}

#endif
