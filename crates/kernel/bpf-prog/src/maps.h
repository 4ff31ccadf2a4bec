/* SPDX-License-Identifier: Apache-2.0
 *
 * All maps. User space overrides max_entries before the maps are created and
 * pins every one of them below its own bpffs directory.
 */
#ifndef TRIREME_MAPS_H
#define TRIREME_MAPS_H

#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include "abi.h"

#define PINNED __uint(pinning, LIBBPF_PIN_BY_NAME)

/* Only arrays that can be mapped begin at a cache line. */
#define ALIGNED __uint(map_flags, BPF_F_MMAPABLE)

/* Interface index (or the edge key of the program) -> PU. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1024);
	__type(key, __u32);
	__type(value, struct pu);
	PINNED;
} pus SEC(".maps");

/* The same for interfaces whose indices share no low bits: found without a hash. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, NEAR);
	__type(key, __u32);
	__type(value, struct pu);
	ALIGNED;
	PINNED;
} near SEC(".maps");

/* What the programs' own table does not hold (table.h): connections of the engine's, and old ones. Never evicts: an
 * entry leaves only through user space, FIN or RST. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 65536);
	__type(key, struct flow_key);
	__type(value, struct connection);
	PINNED;
} connections SEC(".maps");

/* By slot plus one; 0 counts what belongs to no PU. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1025);
	__type(key, __u32);
	__type(value, struct counters);
	PINNED;
} counters SEC(".maps");

/* slot * 4 + limit kind -> limit */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 4096);
	__type(key, __u32);
	__type(value, struct limit);
	PINNED;
} limits SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 4194304);
	PINNED;
} ring_from SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 4194304);
	PINNED;
} ring_to SEC(".maps");

/* SYNs of senders that are not known here: they cannot crowd the others out. */
struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 1048576);
	PINNED;
} ring_unknown SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct control);
	PINNED;
} control SEC(".maps");

/* Marks in flight between the injector and the edge: ifindex << 32 | mark. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, TICKETS);
	__type(key, __u32);
	__type(value, __u64);
	PINNED;
} tickets SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1024);
	__type(key, __u32);
	__type(value, struct edge);
	PINNED;
} edges SEC(".maps");

/* Key of the program's only PU where interface indices are not unique (an
 * edge inside a network namespace); 0 = look up by interface index. */
volatile const __u32 edge_key = 0;

/* Secret of this injector, drawn by user space at every start. */
volatile const __u64 inject_secret[2] = { 0, 0 };

/* Key of the nonces, drawn by user space at every load. */
volatile const __u64 nonce_key[2] = { 0, 0 };

/* Most punts per rate window for unknown senders that share a bucket. */
volatile const __u64 source_limit = 134;

#include "handshake_maps.h"

static __always_inline void count(__u32 slot, __u32 which)
{
	__u32 index = slot + 1;
	struct counters *c = bpf_map_lookup_elem(&counters, &index);

	if (c && which < COUNT_MAX)
		c->value[which]++;
}

#endif
