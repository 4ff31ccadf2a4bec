/* SPDX-License-Identifier: Apache-2.0
 *
 * Room for what does not fit the stack. The programs of one CPU do not
 * interrupt each other.
 */
#ifndef TRIREME_SCRATCH_H
#define TRIREME_SCRATCH_H

#include "tap.h"
#include "time.h"

#define CHUNK 512

/* What the short way needs to know of a segment. */
struct glance {
	struct flow_key key;
	__u32 ip_len;
	__u32 payload_len;
	__u32 seq;
	__u32 ack;
	__u32 fin;
	__u32 pad;
};

/* Which token and keys a SYN is made with. */
struct choice {
	__u8 token[16];
	__u8 key[16];
	__u64 mac_key[2];
	__u32 has_mac;
	__u32 holds;
};

struct scratch {
	struct glance glance;
	struct packet packet;
	struct flow_key key;
	struct moment now;
	struct choice choice;
	union tap tap;
	union tap proof;
	struct event nothing; /* never written: zeros */
	struct event_key event_key;
	__u8 bytes[3 * CHUNK];
	volatile __u64 cursor;
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct scratch);
} scratch SEC(".maps");

/* A length from 1 to mask + 1, which it is already: kernels before 6.5 forget the
 * lower bound of a number that was put aside, so it gets a new one. */
static __always_inline __u64 bounded(__u64 len, const __u64 mask)
{
	len -= 1;
	asm volatile("" : "+r"(len));
	len = (len & mask) + 1;
	asm volatile("" : "+r"(len));
	return len;
}

static __always_inline struct scratch *take_scratch(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&scratch, &zero);
}

#endif
