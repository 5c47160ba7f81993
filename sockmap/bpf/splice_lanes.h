/* Lanes: requests that are known to be allowed, and their answers, go straight past the relay,
 * which is left a note of each. What is not known for sure comes to the relay: docs/fastpath.md. */

#define LINEAR	 32768 /* bytes of a message that are looked at, at most */
#define AT_ONCE	 128   /* messages that come in one send, at most */
#define VALUES	 16
#define RECORDS	 1 /* a length (32 bits) at the prefix's end; so many bytes follow */
#define COMPACT	 2 /* a varint follows, then so many bytes less one, and three noughts */
#define BINDINGS 3 /* values follow, each with its length before it, and `rest` bytes */
#define EXACTLY	 4 /* nothing follows */

#define OPAQUE(value) asm volatile("" : "+r"(value))

/* What becomes of a lane's way if the message goes straight. */
struct progress {
	__u32 made, left, thread, torn;
};

#define SEVERAL 0xffffffff

/* Sends are judged in an order in which they need not come: their sender's lock is given up before
 * they are put into the target's queue, and one of another thread may be there first. That does not
 * matter among whole messages. Parts of one stay behind what is before them if that `landed`, or is
 * the same thread's. */
static inline int in_order(struct lane_way *way, int landed, struct progress *progress)
{
	__u32 thread = bpf_get_current_pid_tgid();
	progress->thread = thread;
	progress->torn = way->left || progress->left;
	if (landed)
		return 1;
	if (way->thread != thread) {
		if (progress->torn || way->torn)
			return 0;
		progress->thread = SEVERAL;
	}
	progress->torn |= way->torn;
	return 1;
}

/* The lane by which what the relay was `given` in this direction so far, and no more, has come to
 * it and gone on; or NULL. */
static inline struct lane *open_lane(struct bridge *bridge, __u32 side, __u32 given)
{
	__u32 place = bridge->lane - 1, epoch;
	struct lane *lane = lanes.lookup(&place);
	struct lane_way *way;
	if (!lane || lane->nonce != bridge->nonce)
		return 0;
	way = &lane->way[side & 1];
	epoch = *(volatile __u32 *)&way->epoch;
	if (!epoch || epoch == way->shut)
		return 0;
	if (given != *(volatile __u32 *)&way->base) {
		way->shut = epoch; /* for good: such numbers come again after 4 GiB */
		return 0;
	}
	return lane;
}

static inline __u32 number_at(void *data, __u32 place)
{
	__be32 found = 0;
	bpf_probe_read_kernel(&found, sizeof(found), data + (place & (LINEAR - 1)));
	return bpf_ntohl(found);
}

static inline __u32 id_at(struct lane *lane, void *data, __u32 place)
{
	__u32 found = number_at(data, place);
	return lane->id_size == 2 ? found >> 16 : found;
}

/* Whether values, as many as are said, and `rest` bytes are what stands from `length` to `size`. */
static inline int binds(void *data, volatile struct scan *scan, __u32 values, __u32 rest)
{
	__u32 turn;
	int size;
	/* Opaque, or the compiler counts down from `values`, and the verifier follows. */
	for (turn = 0; turn < VALUES; turn++) {
		OPAQUE(turn);
		if (turn >= values)
			break;
		if (scan->length + 4 > scan->size)
			return 0;
		size = number_at(data, scan->place + scan->length);
		scan->length += 4;
		if (size < -1 || (size > 0 && size > (int)(scan->size - scan->length)))
			return 0;
		if (size > 0)
			scan->length += size;
	}
	return turn >= values && scan->length + rest == scan->size;
}

static inline int compact(void *data, volatile struct scan *scan)
{
	__u32 value = 0, end, i;
	__u8 byte = 0x80;
#pragma unroll
	for (i = 0; i < 4; i++) {
		byte = 0x80;
		if (scan->place + scan->length >= scan->have || scan->length >= scan->size)
			return 0;
		bpf_probe_read_kernel(&byte, 1,
				      data + ((scan->place + scan->length) & (LINEAR - 1)));
		scan->length++;
		value |= (byte & 0x7f) << (7 * i);
		if (!(byte & 0x80))
			break;
	}
	if (byte & 0x80 || !value || value + 2 != scan->size - scan->length)
		return 0;
	end = scan->place + scan->size;
	return end > scan->have || !(number_at(data, end - 4) & 0xffffff);
}

/* Whether the message at `scan->place` asks for nothing but what is allowed: its number there, and
 * one more. */
static inline __u32 asks(struct lane *lane, void *data, volatile struct scan *scan)
{
	struct known_key *key = &lane->key;
	struct known *found = 0;
	__u32 i, word, length, number, tail = 0;
	for (i = 0; i < SHAPES; i++) {
		struct shape *shape = &lane->shapes[i];
		length = *(volatile __u32 *)&shape->size;
		if (!length)
			return 0;
		if (length > PREFIX || length > scan->size || scan->place + length > scan->have)
			continue;
		tail = shape->tail;
		key->group = lane->group;
		key->size = length;
		key->tail = tail;
#pragma unroll
		for (word = 0; word < PREFIX / 8; word++)
			key->words[word] = 0;
		bpf_probe_read_kernel(key->words, length, data + (scan->place & (LINEAR - 1)));
#pragma unroll
		for (word = 0; word < PREFIX / 8; word++)
			key->words[word] &= shape->mask[word];
		scan->length = length;
		found = known.lookup(key);
		if (found)
			break;
	}
	if (!found)
		return 0;
	number = found->number + 1;
	if (tail == BINDINGS) {
		if (scan->place + scan->size > scan->have ||
		    !binds(data, scan, found->values, found->rest))
			return 0;
	} else if (tail == RECORDS) {
		if (scan->length < 4 ||
		    number_at(data, scan->place + scan->length - 4) != scan->size - scan->length)
			return 0;
	} else if (tail == COMPACT) {
		if (!compact(data, scan))
			return 0;
	} else if (tail != EXACTLY || scan->size != scan->length) {
		return 0;
	}
	return number;
}

static inline int note_request(struct lane *lane, void *data, volatile struct scan *scan)
{
	__u32 number = asks(lane, data, scan);
	struct request_note *note = &lane->requests[scan->made & (NOTES - 1)];
	if (!number)
		return 0;
	note->at = bpf_ktime_get_ns();
	note->id = id_at(lane, data, scan->place + lane->id_at[CLIENT]);
	note->number = number - 1;
	return 1;
}

static inline int note_answer(struct lane *lane, void *data, volatile struct scan *scan)
{
	struct answer_note *note = &lane->answers[scan->made & (NOTES - 1)];
	__u32 part = scan->size;
	__u64 *words = (__u64 *)note->sample;
	if (part > SAMPLE)
		part = SAMPLE;
	if (scan->place + part > scan->have)
		return 0;
	words[0] = words[1] = words[2] = words[3] = 0;
	bpf_probe_read_kernel(note->sample, part, data + (scan->place & (LINEAR - 1)));
	if ((words[0] & lane->answer_mask[0]) != lane->answer[0] ||
	    (words[1] & lane->answer_mask[1]) != lane->answer[1])
		return 0;
	note->at = bpf_ktime_get_ns();
	note->size = part;
	note->id = id_at(lane, data, scan->place + lane->id_at[SERVER]);
	return 1;
}

#define SEGMENT 6	   /* bytes of its header: length, a bit, and their CRC */
#define TRAILER 4	   /* bytes of the CRC behind its messages */
#define PAYLOAD 0x1ffff	   /* of the header: how many bytes these are */
#define ALONE	(1U << 17) /* it holds whole messages */

/* At a segment's beginning: whether it is all there, and holds whole messages. */
static inline int segment_begins(void *data, volatile struct scan *scan, __u32 size)
{
	__u32 bits = 0;
	if (scan->place + SEGMENT > scan->have)
		return 0;
	bpf_probe_read_kernel(&bits, 3, data + (scan->place & (LINEAR - 1)));
	if ((bits & ~PAYLOAD) != ALONE)
		return 0;
	scan->place += SEGMENT;
	scan->stop = scan->place + (bits & PAYLOAD);
	return scan->stop + TRAILER <= size;
}

/* Whether all that is sent is known: whole messages, or what follows of one that is. */
static inline int known_messages(struct lane *lane, __u32 side, struct sk_msg_md *msg,
				 struct progress *progress)
{
	struct lane_way *way = &lane->way[side & 1];
	volatile struct scan *scan = &way->scan;
	__u32 size = msg->size, left = way->left, have, answered, i;
	void *data;
	if (left >= size) {
		progress->made = way->made;
		progress->left = left - size;
		return 1;
	}
	if (side == CLIENT && bpf_ktime_get_ns() > *(volatile __u64 *)&lane->until)
		return 0;
	if (bpf_msg_pull_data(msg, 0, size < LINEAR ? size : LINEAR, 0))
		return 0;
	data = (void *)(long)msg->data;
	have = (void *)(long)msg->data_end - data;
	scan->have = have < LINEAR ? have : LINEAR;
	scan->stop = 0;
	scan->place = left;
	scan->made = way->made;
	for (i = 0; i < AT_ONCE; i++) {
		if (lane->segments && !scan->stop && !segment_begins(data, scan, size))
			return 0;
		if (scan->place + lane->head > scan->have ||
		    scan->made - *(volatile __u32 *)&way->read >= NOTES)
			return 0;
		answered = *(volatile __u32 *)&lane->way[SERVER].made;
		if (side == CLIENT && (int)(scan->made - answered - way->bound) >= 0)
			return 0;
		scan->size = number_at(data, scan->place + lane->length_at) + lane->more;
		if (scan->size < lane->head || scan->size > lane->most)
			return 0;
		if (scan->stop && scan->size > scan->stop - scan->place)
			return 0;
		if (side == CLIENT ? !note_request(lane, data, scan)
				   : !note_answer(lane, data, scan))
			return 0;
		scan->made++;
		if (!scan->stop && scan->size >= size - scan->place) {
			progress->made = scan->made;
			progress->left = scan->size - (size - scan->place);
			return 1;
		}
		scan->place += scan->size;
		if (!scan->stop || scan->place != scan->stop)
			continue;
		scan->place += TRAILER;
		scan->stop = 0;
		if (scan->place == size) {
			progress->made = scan->made;
			progress->left = 0;
			return 1;
		}
	}
	return 0;
}
