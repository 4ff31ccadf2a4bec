/* SPDX-License-Identifier: Apache-2.0
 *
 * The agent's signs of life, and the wall clock. Asked for by handshakes only:
 * established segments read no precise clock.
 */
#ifndef TRIREME_TIME_H
#define TRIREME_TIME_H

#include "maps.h"

struct moment {
	__u64 boot;
	__u64 wall; /* behind it, tokens are not valid */
	__u32 events;
	__u32 away;
	__u32 agent; /* which one reads the rings */
};

static __always_inline void look_at_clock(struct moment *now, struct pu *pu)
{
	__u32 zero = 0;
	struct clock *c = bpf_map_lookup_elem(&clock, &zero);
	__u64 alive_at;

	now->boot = bpf_ktime_get_boot_ns();
	now->wall = ~0ULL;
	now->events = 0;
	now->away = 1;
	now->agent = 0;
	if (!c)
		return;
	alive_at = c->alive_at;
	now->events = c->events & 1;
	now->agent = c->agent;
	now->wall = now->boot + c->wall_offset;
	now->away = now->boot - alive_at > ALIVE_NANOS && now->boot > alive_at;
	/* Last known: time stands still for a while from the last sign on. */
	if (now->away && pu->fail == FAIL_LAST_KNOWN && now->boot - alive_at < pu->fail_nanos)
		now->wall = alive_at + c->wall_offset;
}

#endif
