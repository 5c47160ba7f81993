/* Which way a send goes. */

#define SOON	 20000ULL /* nanoseconds: of senders that stream */
#define MANY	 16	  /* more than a message is ever sent in by pieces */
#define SMALL	 1024	  /* bytes: less than the least receive buffer */
#define GRANTED	 4096	  /* bytes: the least tcp_rmem */
#define PAGE	 4096
#define MESSAGE	 1024 /* bytes that the kernel needs for a message, besides what it carries */
#define LOCKED	 2    /* SOCK_RCVBUF_LOCK: its program has set SO_RCVBUF */
#define SENT_ALL 2    /* SEND_SHUTDOWN */

/* The two ends count the same bytes, so these say how many the stack still carries, or has at the
 * peer. */
static inline __u32 by_stack(struct own *own)
{
	return word(own->self, OFFSET_WRITE_SEQ) - word(own->peer, OFFSET_COPIED_SEQ);
}

#ifdef OFFSET_QUEUED
static inline int measure(struct own *own, struct way *way, __u64 psock, struct waiting *waiting)
{
	waiting->bytes = word(psock, OFFSET_QUEUED);
	waiting->by_stack = by_stack(own);
	return 1;
}
#else
/* A kernel that does not count what waits counts what was spliced as if the stack had carried it,
 * once it is read: given less taken is what waits. The stack carries nothing if it was given
 * nothing since all was read. */
static inline int measure(struct own *own, struct way *way, __u64 psock, struct waiting *waiting)
{
	struct pair *pair = pairs.lookup(&own->id);
	__u32 given, reader = !(own->side & 1);
	if (!pair)
		return 0;
	given = word(own->self, OFFSET_WRITE_SEQ) - pair->end[reader].start;
	waiting->bytes = given + (__u32)way->spliced - (__u32)pair->taken[reader];
	if (!waiting->bytes)
		way->quiet = given;
	waiting->by_stack = given - way->quiet;
	return 1;
}
#endif

/* The messages that may wait, in two generations: when all that was spliced before the mark is
 * read, the older one is gone. Small ones would take a thousand times the memory of their bytes. */
static inline __u64 memory(struct way *way, __u32 waiting)
{
	if (way->spliced >= way->mark + waiting) {
		way->older = way->newer;
		way->newer = 0;
		way->mark = way->spliced;
	}
	return waiting + MESSAGE * ((__u64)way->older + way->newer);
}

/* An SO_RCVBUF that the reader's program has chosen holds for what is spliced as well: the kernel,
 * which cannot make it larger then, would drop what the stack brings. */
static inline int above_its_own(struct own *own, __u64 wanted)
{
	return wanted > SMALL && wanted > word(own->peer, OFFSET_RECEIVE_BUFFER) / 2 &&
	       word(own->peer, OFFSET_LOCKS) & LOCKED;
}

#ifdef OFFSET_TCPMEM
#define LEVELS 8  /* of cgroups in each other; the outer ones are seldom the narrower */
#define SLACK  64 /* pages, that others may take meanwhile */

/* A limit of cgroup v1 for TCP's memory, at which a send that is spliced would end with ENOMEM. (Of
 * v2's limit of all memory the kernel makes room for it.) */
static inline int limited(struct own *own, __u32 wanted)
{
	__u64 counter = pointer(own->peer, OFFSET_MEMCG);
	int level;
	if (!counter)
		return 0;
	counter += OFFSET_TCPMEM;
#pragma unroll
	for (level = 0; level < LEVELS; level++) {
		if (pointer(counter, OFFSET_USAGE) + wanted / PAGE + SLACK >
		    pointer(counter, OFFSET_MOST))
			return 1;
		counter = pointer(counter, OFFSET_PARENT);
		if (!counter)
			break;
	}
	return 0;
}
#else
#define limited(own, wanted) 0
#endif

/* Above its first limit (tcp_mem) the kernel may refuse memory for what is spliced, and the send
 * would end with ENOMEM, where the stack waits. A little is always granted. */
static inline int scarce(struct own *own, __u32 wanted)
{
	__s64 allocated,
	    limit; /* in pages; CPUs keep some back, so the first may be below nought */
	__u64 proto;
	if (limited(own, wanted))
		return 1;
	if (wanted <= GRANTED)
		return 0;
	proto = pointer(own->self, OFFSET_PROTO);
	allocated = pointer(pointer(proto, OFFSET_ALLOCATED), 0);
	limit = pointer(pointer(proto, OFFSET_LIMITS), 0);
	return allocated > limit - (limit >> 3);
}

/* 0: to the peer's queue. `own->self` is the sender; its lock is held, so what it has sent stands
 * still. */
static inline __u32 unspliceable(struct scope *s, struct own *own, struct pair *pair, __u32 size,
				 struct waiting *waiting)
{
	struct way *way = &pair->way[own->side & 1];
	__u64 psock, wanted;
	if (!s->on)
		return SPLICE_STOPPED;
	if (way->leaving || pair->way[!(own->side & 1)].leaving)
		return SPLICE_LEAVING;
	if (pointer(own->self, OFFSET_ULP) || pointer(own->peer, OFFSET_ULP))
		return SPLICE_ULP;
	if (word(own->self, OFFSET_SHUTDOWN) & SENT_ALL) /* the stack says EPIPE */
		return SPLICE_NO_PEER;
	if (word(own->peer, OFFSET_LOW_WATER) > 1)
		return SPLICE_LOW_WATER;
	psock = pointer(own->peer, OFFSET_USER_DATA) & ~7ULL;
	if (!psock || !measure(own, way, psock, waiting))
		return SPLICE_NO_PEER;
	wanted = memory(way, waiting->bytes);
	if (wanted >= s->budget || above_its_own(own, wanted + size))
		return SPLICE_BUDGET;
	if (scarce(own, waiting->bytes + size))
		return SPLICE_MEMORY;
	/* At every send: another thread's may have left half of its bytes to the stack meanwhile.
	 */
	return waiting->by_stack ? SPLICE_ORDER : 0;
}

static inline void to_peer(struct way *way, __u32 size)
{
	if (!way->redirecting) {
		way->redirecting = 1;
		way->flips++;
		add(SPLICE_FLIPS, 1);
	}
	way->spliced += size;
	way->newer++;
	add(SPLICE_SPLICED_BYTES, size);
}

/* Whether a small message is one of many right behind each other: no answer, and hardly time,
 * between them. */
static inline int follows(struct pair *pair, struct way *way)
{
	struct way *back = way == &pair->way[CLIENT] ? &pair->way[SERVER] : &pair->way[CLIENT];
	__u64 now = bpf_ktime_get_ns(), heard = back->spliced + back->stack;
	way->run = now - way->at < SOON && heard == way->heard ? way->run + 1 : 0;
	way->at = now;
	way->heard = heard;
	return way->run > MANY;
}

/* Whether that pays for the sender of `way`: `before`, bytes that its reader has not taken. */
static inline void judge_worth(struct pair *pair, struct way *way, __u32 size, __u32 before)
{
	if (size < SHORT && (follows(pair, way) || before))
		not_worth_it(pair, way, size);
	else
		worth_it(way, size);
}

/* What is spliced makes no packets that a new policy could drop: this message is the stack's. The
 * order rule keeps the next ones there until the peer has read it, and to be read it must have been
 * let through. Only bytes show that: of this message the stack may take none. */
static inline __u32 unjudged(struct scope *s, struct own *own, struct way *way)
{
	__u32 given;
	if (way->generation == s->generation)
		return 0;
	given = word(own->self, OFFSET_WRITE_SEQ);
	if (way->asked == s->generation && given != way->since) {
		way->generation = way->asked;
		return 0;
	}
	way->asked = s->generation;
	way->since = given;
	return SPLICE_POLICY;
}

static inline void to_stack(struct pair *pair, struct way *way, __u32 size, __u32 why)
{
	way->redirecting = 0;
	way->stack += size;
	way->last = why;
	add(SPLICE_STACK_BYTES, size);
	add(why, 1);
	if (why == SPLICE_BUDGET) {
		way->budget_hits++;
		add(SPLICE_BUDGET_HITS, 1);
	}
	not_worth_it(pair, way, size);
}
