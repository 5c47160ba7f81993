/* One end of a stream of the stress program. Both ends know the whole plan of a stream from the
 * seed and its number. */
#ifndef STREAM_H
#define STREAM_H

#include <stdint.h>

enum kind {
	FULL,	/* both send at once, close their halves, read to the end */
	HALF,	/* the server begins when it has read the client's end */
	CROSS,	/* both close as soon as they have all bytes, without looking at the other's end */
	RESET,	/* one end resets after some bytes */
	UNREAD, /* one end never reads, and closes after some bytes */
	ORPHAN, /* never accepted: the client writes until the listener is closed */
	KINDS
};
extern const char *const kind_names[KINDS];

#define BYE	(~0ull) /* number of the stream that ends the server */
#define HELLO	16 /* bytes: what the client begins with. The server begins with a byte, WELCOME */
#define WELCOME 'w'

struct options {
	uint64_t seed, bytes;
	unsigned kinds; /* bits */
	int connections, seconds, threads, patience;
};

struct plan {
	uint64_t id, bytes[2];
	uint32_t largest[2]; /* write of each end */
	uint32_t stall[2];   /* one in so many operations is followed by a pause; 0: none */
	enum kind kind;
	int actor;   /* the end that resets or closes early */
	int edge[2]; /* edge-triggered events */
};

struct counts {
	uint64_t streams[KINDS], sent, received, resets, refused, peeks, inquiries, nameless,
	    no_port, most;
};

struct worker {
	const struct options *options;
	int epoll, bye, first;
	struct counts counts;
	struct end **ends;
	int all_started;
	int live, room, waiting; /* waiting: streams that nobody has welcomed yet */
	char *buffer;
};

struct end {
	struct plan plan;
	struct worker *worker;
	int fd, side, slot;
	int connecting, named, readable, writable, eof, reset, sent_all, over;
	uint64_t rng, sent, received;
	char hello[HELLO]; /* own or the peer's */
	int greeted, met;  /* bytes of the own greeting that went, and of the peer's that came */
	int64_t read_after, write_after, wake, moved;
	uint32_t interest;
};

/* Small ones as often as large ones. */
uint64_t some_size(uint64_t *rng, uint64_t most);
/* Records that an end is not right at an offset of what it reads, and marks it as over. */
__attribute__((format(printf, 3, 4))) void fail(struct end *end, uint64_t offset,
						const char *format, ...);
void make_plan(const struct options *options, uint64_t id, struct plan *plan);
/* Takes `fd` over; plan is 0 on the server until the hello has come. */
void add_end(struct worker *worker, int fd, const struct plan *plan);
void step(struct end *end);
void happened(struct end *end, uint32_t events);
void check_hung(struct end *end, int64_t now);
void report_failures(void);
int has_failed(void);

static inline uint64_t random64(uint64_t *state)
{
	*state ^= *state << 13;
	*state ^= *state >> 7;
	return *state ^= *state << 17;
}

#endif
