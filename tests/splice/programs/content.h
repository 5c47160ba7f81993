/* The content of test streams: 64-bit words, each the number of the word (times an odd constant)
   xor a hash of the stream's seed. So every byte says which stream it is of and where it belongs in
   it. */
#ifndef CONTENT_H
#define CONTENT_H

#include <stdint.h>
#include <string.h>
#include <sys/types.h>

#define WORD_STEP 0x9e3779b97f4a7c15ull

static inline uint64_t mix(uint64_t x)
{
	x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ull;
	x = (x ^ (x >> 27)) * 0x94d049bb133111ebull;
	return x ^ (x >> 31);
}

/* The seed of what `side` (0 or 1) of stream `id` sends. */
static inline uint64_t content_seed(uint64_t seed, uint64_t id, int side)
{
	return mix(mix(seed + WORD_STEP) + 2 * id + (uint64_t)side);
}

static inline void content_fill(uint64_t seed, uint64_t offset, void *to, size_t bytes)
{
	uint64_t number = offset / 8, word;
	size_t skip = offset % 8, part;
	char *at = to;

	for (; bytes; at += part, bytes -= part, skip = 0, number++) {
		word = (number * WORD_STEP) ^ seed;
		part = bytes < 8 - skip ? bytes : 8 - skip;
		if (part == 8)
			memcpy(at, &word, 8);
		else
			memcpy(at, (char *)&word + skip, part);
	}
}

/* The first wrong byte of what should be the stream from `offset` on; -1 if all are right. */
static inline ssize_t content_wrong(uint64_t seed, uint64_t offset, const void *from, size_t bytes)
{
	const char *at = from;
	char right[4096];
	size_t done, part, i;

	for (done = 0; done < bytes; done += part) {
		part = bytes - done < sizeof(right) ? bytes - done : sizeof(right);
		content_fill(seed, offset + done, right, part);
		if (!memcmp(right, at + done, part))
			continue;
		for (i = 0; right[i] == at[done + i]; i++)
			;
		return done + i;
	}
	return -1;
}

/* The offset in the stream that these bytes (15 are enough) belong to; -1 if they are none of its.
 */
static inline int64_t content_locate(uint64_t seed, const void *from, size_t bytes)
{
	uint64_t inverse = WORD_STEP, word, number;
	size_t skip;
	int i;

	for (i = 0; i < 6; i++)
		inverse *= 2 - WORD_STEP * inverse;
	for (skip = 0; skip < 8 && skip + 8 <= bytes; skip++) {
		memcpy(&word, (const char *)from + skip, 8);
		number = (word ^ seed) * inverse;
		if (number < 1ull << 40 && number * 8 >= skip)
			return (int64_t)(number * 8 - skip);
	}
	return -1;
}

#endif
