/* Straight from a sender to the far end of a connection that is relayed, past both of the relay's
 * sockets: docs/splice.md says why that keeps the order, and what the relay owes for it. */

#define RECEIVED_ALL 1 /* RCV_SHUTDOWN */

/* What this end has given to the one beside it, the relay's. */
static inline __u32 given(struct pair *pair, struct own *own)
{
	__u32 by_stack = word(own->self, OFFSET_WRITE_SEQ) - pair->end[!(own->side & 1)].start;
	return by_stack + (__u32)pair->way[own->side & 1].spliced;
}

/* Where an end is known (a message's, of HTTP, say) nothing behind it may come to the target before
 * what goes straight: the relay waits until the target has read that, so its reads have to be
 * counted rightly. That is known while it has read all that it was given. */
static inline int counted(struct pair *far, struct own *via, __u32 before)
{
	struct straight *straight = &far->straight[via->side & 1];
	return (__u32)far->taken[!(via->side & 1)] == before ||
	       (straight->bytes && straight->expected == before);
}

/* Whether all that a target has not read is in its queue, and nothing on the way there: `unread`
 * was counted before `waiting`, so what is read meanwhile is missed. */
static inline int landed(__u32 unread, struct waiting *waiting)
{
#ifdef OFFSET_QUEUED
	return unread == waiting->bytes;
#else
	return !unread;
#endif
}

/* Whether the message goes to the far end. `lane`: NULL, or the one that it would go by. */
static inline int crosses(struct scope *s, struct own *own, struct way *own_way, struct own *via,
			  struct pair *far, struct bridge *bridge, struct lane *lane,
			  struct sk_msg_md *msg, struct waiting *waiting)
{
	struct straight *straight = &far->straight[via->side & 1];
	struct way *way = &far->way[via->side & 1];
	struct place to = bridge->target;
	struct progress progress = {};
	struct lane_way *by = 0;
	__u32 before = given(far, via), unread = before - (__u32)far->taken[!(via->side & 1)];
	long taken;
	if ((lane || bridge->limit) && !counted(far, via, before))
		return 0;
	if (!lane && bridge->limit && straight->bytes + msg->size > bridge->limit)
		return 0;
	if (unspliceable(s, via, far, msg->size, waiting) || unjudged(s, own, own_way) ||
	    unjudged(s, via, way))
		return 0;
	if (lane) {
		by = &lane->way[own->side & 1];
		if (!known_messages(lane, own->side & 1, msg, &progress) ||
		    !in_order(by, landed(unread, waiting), &progress))
			return 0;
	}
	taken = spliced.msg_redirect_hash(msg, &to, BPF_F_INGRESS);
	if (taken != SK_PASS)
		return 0;
	if (by) {
		by->thread = progress.thread;
		by->torn = progress.torn;
		by->left = progress.left;
		by->made = progress.made;
	}
	to_peer(way, msg->size);
	straight->bytes += msg->size;
	straight->expected = before + msg->size;
	add(SPLICE_STRAIGHT_BYTES, msg->size);
	return 1;
}

/* Whether the message is on its way to the far end. The sender's lock is held: nothing else comes
 * from there meanwhile, so the relay has nothing to write, and what its socket does is done here.
 */
static inline int crossed(struct scope *s, struct own *own, struct pair *near,
			  struct sk_msg_md *msg)
{
	struct waiting waiting = {};
	struct place from = {};
	struct own via = {};
	struct bridge *bridge;
	struct lane *lane = 0;
	struct pair *far;
	struct way *own_way = &near->way[own->side & 1], *way;
	__u32 side;
	int done;
	from.id = own->id;
	from.side = own->side;
	bridge = bridges.lookup(&from);
	if (!bridge)
		return 0;
	if (bridge->lane) {
		lane = open_lane(bridge, own->side & 1, given(near, own));
		if (!lane)
			return 0;
	} else if (bridge->over || given(near, own) != bridge->base) {
		bridge->over = 1; /* for good: such numbers come again after 4 GiB */
		return 0;
	}
	if (pointer(own->self, OFFSET_ULP) || word(own->self, OFFSET_SHUTDOWN) & SENT_ALL ||
	    word(own->peer, OFFSET_SHUTDOWN) & RECEIVED_ALL || near->gone[!(own->side & 1)])
		return 0;
	via.id = bridge->target.id;
	side = bridge->target.side & 1;
	far = pairs.lookup(&via.id);
	if (!far || !far->spliceable || far->gone[0] || far->gone[1])
		return 0;
	via.side = !side;
	via.self = far->end[!side].sock;
	via.peer = far->end[side].sock;
	way = &far->way[!side];
	__sync_fetch_and_add(&way->begun, 1); /* seen before what is read from here on */
	APART("what follows is done between the two");
	done = crosses(s, own, own_way, &via, far, bridge, lane, msg, &waiting);
	APART("and nothing behind");
	way->decided++;
	if (done && lane)
		worth_it(own_way, msg->size);
	else if (done)
		judge_worth(near, own_way, msg->size, waiting.bytes);
	return done;
}
