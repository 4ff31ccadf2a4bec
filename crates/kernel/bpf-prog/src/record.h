/* SPDX-License-Identifier: Apache-2.0
 *
 * Flow events: equal ones are added up in one of two maps while user space
 * reads the other.
 */
#ifndef TRIREME_RECORD_H
#define TRIREME_RECORD_H

#include "scratch.h"
#include "time.h"

enum happening { HAPPENED_START, HAPPENED_REFUSAL, HAPPENED_END, HAPPENED_TRAFFIC };

#define FIND_OR_MAKE(map)                                                     \
	do {                                                                  \
		e = bpf_map_lookup_elem(&map, key);                           \
		if (!e) {                                                     \
			bpf_map_update_elem(&map, key, &s->nothing, BPF_NOEXIST); \
			e = bpf_map_lookup_elem(&map, key);                   \
		}                                                             \
	} while (0)

/* The event named in the scratch; none: its map is full. */
static __always_inline struct event *event_of(struct scratch *s, __u32 which)
{
	struct event_key *key = &s->event_key;
	struct event *e;

	if (which)
		FIND_OR_MAKE(events_1);
	else
		FIND_OR_MAKE(events_0);
	return e;
}

/* Adds to the event named in the scratch. `c`: the connection that ended, once
 * or, having come back, once more. */
static __noinline int happened(struct scratch *s, struct moment *now, struct connection *c,
			       __u32 what)
{
	struct event *e = event_of(s, now->events);

	if (!e) {
		count(s->event_key.slot, COUNT_FLOW_LOST);
		return 0;
	}
	if (!e->first)
		e->first = now->boot;
	e->last = now->boot;
	if (what == HAPPENED_START)
		__sync_fetch_and_add(&e->starts, 1);
	if (what == HAPPENED_REFUSAL)
		__sync_fetch_and_add(&e->refused, 1);
	if (!c || what < HAPPENED_END)
		return 0;
	if (what == HAPPENED_END)
		__sync_fetch_and_add(&e->ends, 1);
	__sync_fetch_and_add(&e->packets_from, c->packets_from);
	__sync_fetch_and_add(&e->bytes_from, c->bytes_from);
	__sync_fetch_and_add(&e->packets_to, c->packets_to);
	__sync_fetch_and_add(&e->bytes_to, c->bytes_to);
	return 0;
}

static __always_inline __u32 slot_of(const struct flow_key *flow)
{
	return flow->unit & ((1U << SLOT_BITS) - 1);
}

static __always_inline struct event_key *name_event(struct scratch *s, struct flow_key *flow,
						    __u32 direction, __be16 port)
{
	struct event_key *key = &s->event_key;

	key->slot = slot_of(flow);
	key->peer_slot = 0;
	key->peer_generation = 0;
	key->port = port;
	key->reason = 0;
	key->rule = 0;
	key->direction = direction;
	key->refused = 0;
	__builtin_memcpy(key->local, flow->local, 16);
	__builtin_memcpy(key->remote, flow->remote, 16);
	return key;
}

/* The port that the policy judged. */
static __always_inline __be16 judged_port(struct flow_key *flow, struct connection *c)
{
	if (c->role == ROLE_RESPONDER)
		return flow->local_port;
	return c->attested_family ? bpf_htons(c->attested_port) : flow->remote_port;
}

static __always_inline __u32 direction_of(struct connection *c)
{
	return c->role == ROLE_RESPONDER ? DIRECTION_INGRESS : DIRECTION_EGRESS;
}

/* A live connection ended, or one that came back after its end was told: what is
 * told of it counts from zero again. */
static __noinline int tell_end(struct flow_key *flow, struct pu *pu, struct connection *c, __u32 what)
{
	struct scratch *s = take_scratch();
	struct event_key *event;
	struct moment now;

	if (!s)
		return 0;
	look_at_clock(&now, pu);
	event = name_event(s, flow, direction_of(c), judged_port(flow, c));
	event->peer_slot = c->peer_slot;
	event->peer_generation = c->peer_generation;
	happened(s, &now, c, what);
	c->packets_from = 0;
	c->bytes_from = 0;
	c->packets_to = 0;
	c->bytes_to = 0;
	return 0;
}

#endif
