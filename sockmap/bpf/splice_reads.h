/* How sockets are read: what programs are known by, and when a pair is at its end. */

#define PEEK	 2	/* MSG_PEEK */
#define DONTWAIT 0x40	/* MSG_DONTWAIT, and what reads of a socket with O_NONBLOCK have */
#define WAITALL	 0x100	/* MSG_WAITALL */
#define ERRORS	 0x2000 /* MSG_ERRQUEUE */
#define SECOND	 1000000000ULL
#define ENOUGH	 32 /* reads of one connection that show how its program reads */

/* Used as a socket in a map cannot be: urgent data, MSG_ZEROCOPY (whose completions would not
 * come), a low-water mark, an upper layer protocol. */
static inline int peculiar(__u64 sock)
{
	return word(sock, OFFSET_URGENT) || word(sock, OFFSET_ZEROCOPY) ||
	       word(sock, OFFSET_LOW_WATER) > 1 || pointer(sock, OFFSET_ULP);
}

/* Whether bytes have gone that no read has returned: they were spliced. Of a socket in the map none
 * can be, and what comes after its close counts as read. */
static inline int missing(struct own *own, int slack)
{
	int consumed = word(own->self, OFFSET_COPIED_SEQ) - own->start;
	return !own->enrolled && consumed - (int)own->taken > slack;
}

static inline void judge(struct own *own, int otherwise)
{
	struct style fresh = {};
	struct style *style = styles.lookup_or_try_init(&own->tag, &fresh);
	own->judged = 1;
	if (!style)
		return;
	style->reads += own->calls;
	if (otherwise)
		style->otherwise++;
	else
		style->sound++;
}

/* It is known at once: what its program opens from now on is left alone. */
static inline void reads_otherwise(struct own *own)
{
	if (own->otherwise)
		return;
	own->otherwise = 1;
	judge(own, 1);
}

/* A read that waits on a socket of the map may end with EAGAIN: at a signal, a reset, or when there
 * is room to write again. */
static inline int may_wait(void)
{
	struct scope *s = the_scope();
	return s && (s->blocking || s->untaught);
}

/* The tracepoints of these names; others than RAW_TRACEPOINT_PROBE may ask for what a socket owns.
 */
int sock_recv_length(__u64 *ctx)
{
	void *sock = (void *)ctx[0];
	int size = ctx[1], flags = ctx[2];
	struct own *own = owns.sk_storage_get(sock, 0, 0);
	struct pair *pair;
	if (!own || !own->id)
		return 0;
	if (flags & WAITALL || (!(flags & DONTWAIT) && !may_wait()))
		reads_otherwise(own);
	if (size > 0 && !(flags & (PEEK | ERRORS))) {
		own->taken += size;
		own->calls++;
		pair = pairs.lookup(&own->id);
		if (pair) {
			/* threads read at once */
			__sync_fetch_and_add(&pair->taken[own->side & 1], size);
			pair->cpu[own->side & 1] = bpf_get_smp_processor_id();
		}
		/* What is missing may be in another thread's hands, on its way here. */
		if (own->calls >= ENOUGH && !own->judged && !missing(own, 0))
			judge(own, 0);
	}
	return 0;
}

/* Both ends may go at once, each on a CPU: whichever counts last sees both. */
static inline int both_are_gone(struct pair *pair)
{
	__sync_fetch_and_add(&pair->ended, 1);
	return *(volatile __u32 *)&pair->ended > 1;
}

/* This end of the pair is there no longer. Of a socket in the map of sockets, on_socket sees it
 * first, which goes on without the process. */
static inline void leave(struct own *own)
{
	struct pair *pair = pairs.lookup(&own->id);
	struct way *way;
	if (!pair || pair->gone[own->side & 1])
		return;
	way = &pair->way[!(own->side & 1)];
	if (way->left && own->taken > way->spliced + way->stack) {
		add(SPLICE_STACK_BYTES, own->taken - way->spliced - way->stack);
		way->stack = own->taken - way->spliced;
	}
	pair->gone[own->side & 1] = bpf_ktime_get_ns() / SECOND + 1;
	if (!pair->since) /* nor will the other end be */
		pairs.delete(&own->id);
	else if (both_are_gone(pair))
		pair_ended(own->id, pair);
}

static inline void over(struct own *own)
{
	leave(own);
	if (peculiar(own->self))
		reads_otherwise(own);
	else if (own->calls && !own->judged)
		judge(own, missing(own, 1)); /* FIN has a number as well */
	own->id = 0;
}

int tcp_destroy_sock(__u64 *ctx)
{
	void *sock = (void *)ctx[0];
	struct own *own = owns.sk_storage_get(sock, 0, 0);
	if (own && own->id)
		over(own);
	return 0;
}
