/* SPDX-License-Identifier: Apache-2.0
 *
 * SipHash-2-4 with 128 bits of output (Aumasson, Bernstein: "SipHash: a fast
 * short-input PRF"), for inputs of whole words. Words are little-endian, as is
 * every machine that this object is built for.
 */
#ifndef TRIREME_SIPHASH_H
#define TRIREME_SIPHASH_H

#include <linux/types.h>

#define ROTATE(x, n) ((x) << (n) | (x) >> (64 - (n)))

#define SIP_ROUND                                  \
	do {                                       \
		v0 += v1;                          \
		v1 = ROTATE(v1, 13) ^ v0;          \
		v0 = ROTATE(v0, 32);               \
		v2 += v3;                          \
		v3 = ROTATE(v3, 16) ^ v2;          \
		v0 += v3;                          \
		v3 = ROTATE(v3, 21) ^ v0;          \
		v2 += v1;                          \
		v1 = ROTATE(v1, 17) ^ v2;          \
		v2 = ROTATE(v2, 32);               \
	} while (0)

#define SIP_START(key)                                     \
	__u64 v0 = (key)[0] ^ 0x736f6d6570736575ULL;       \
	__u64 v1 = (key)[1] ^ 0x646f72616e646f6dULL ^ 0xee; \
	__u64 v2 = (key)[0] ^ 0x6c7967656e657261ULL;       \
	__u64 v3 = (key)[1] ^ 0x7465646279746573ULL

#define SIP_WORD(word)         \
	do {                   \
		__u64 m = (word); \
		v3 ^= m;       \
		SIP_ROUND;     \
		SIP_ROUND;     \
		v0 ^= m;       \
	} while (0)

#define SIP_FOUR_ROUNDS    \
	do {               \
		SIP_ROUND; \
		SIP_ROUND; \
		SIP_ROUND; \
		SIP_ROUND; \
	} while (0)

#define SIP_END(out, words)                     \
	do {                                    \
		SIP_WORD((__u64)(words) << 59); \
		v2 ^= 0xee;                     \
		SIP_FOUR_ROUNDS;                \
		(out)[0] = v0 ^ v1 ^ v2 ^ v3;   \
		v1 ^= 0xdd;                     \
		SIP_FOUR_ROUNDS;                \
		(out)[1] = v0 ^ v1 ^ v2 ^ v3;   \
	} while (0)

#endif
