/* Which ends are taken out of the map again. Beside what it saves, a send through the map costs the
 * kernel more than one past it. That does not pay where the reader, on the sender's CPU, gets its
 * turn when the queue is full and the rest has gone to the stack; nor for small messages behind
 * each other, which TCP joins. */

#define SHORT	4096	    /* bytes of a small message */
#define EARLIER 8	    /* small ones cost most: so much less of them is enough */
#define SETTLED 10000000ULL /* nanoseconds after which all CPUs have seen what was written */

static inline int reader_is_here(struct pair *pair, struct way *way)
{
	__u32 cpu = way == &pair->way[CLIENT] ? pair->cpu[SERVER] : pair->cpu[CLIENT];
	return cpu == bpf_get_smp_processor_id();
}

/* STREAMED: so many bytes of a way, less those that were spliced to a reader which keeps up, nine
 * times (of small messages, twice). Large ones between small ones count against these. */
static inline void worth_it(struct way *way, __u32 size)
{
	__u64 worth = (size < SHORT ? 2ULL : 9ULL) * size;
	way->streamed = way->streamed > worth ? way->streamed - worth : 0;
	way->small = way->small > worth ? way->small - worth : 0;
}

static inline void not_worth_it(struct pair *pair, struct way *way, __u32 size)
{
	way->streamed += size;
	if (size < SHORT)
		way->small += size;
	else
		way->small = way->small > size ? way->small - size : 0;
	if (way->leaving ||
	    (way->streamed < STREAMED && (size >= SHORT || way->small < STREAMED / EARLIER)))
		return;
	way->streamed = 0;
	if (size < SHORT || reader_is_here(pair, way))
		way->leaving = bpf_ktime_get_ns();
}

/* The end that has sent `way` acknowledges: its lock is held. It may go when nothing that was
 * spliced to it can still be on its way: its peer has been told to splice no more, is not in
 * the middle of a decision that it began before, and all that it gave was returned by recv. */
static inline void leaves_map(struct bpf_sock_ops *ops)
{
	struct bpf_sock *sk = ops->sk;
	struct own *own = sk ? owns.sk_storage_get(sk, 0, 0) : 0;
	struct place place = {};
	struct pair *pair;
	struct way *way, *back;
	__u64 cookie;
	__u32 given;
	if (!own || !own->enrolled)
		return;
	pair = pairs.lookup(&own->id);
	if (!pair)
		return;
	way = &pair->way[own->side & 1];
	back = &pair->way[!(own->side & 1)];
	if (!way->leaving || way->left || bpf_ktime_get_ns() - way->leaving < SETTLED ||
	    back->begun != back->decided)
		return;
	given = ops->rcv_nxt - own->start + (__u32)back->spliced;
	if ((__u32)own->taken != given)
		return;
	place.id = own->id;
	place.side = own->side;
	if (spliced.delete(&place))
		return;
	way->left = 1;
	cookie = bpf_get_socket_cookie(ops);
	enrolled.delete(&cookie);
	add(SPLICE_TAKEN_OUT, 1);
}
