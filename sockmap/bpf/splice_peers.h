/* Who is whose peer, and which pairs are in the map of sockets. */

#define WATCHED (BPF_SOCK_OPS_STATE_CB_FLAG | BPF_SOCK_OPS_RTT_CB_FLAG)
/* Of a socket without storage: its program is left alone. The calls that it asks for are rare. */
#define MARK	BPF_SOCK_OPS_RTO_CB_FLAG
#define UNASKED 5000000000ULL /* nanoseconds for which a server that is left alone is not asked */

static inline struct hint *hint_of(struct address *client, __u16 port)
{
	__u32 place = ((client->word[2] ^ client->word[3]) * 0x9e3779b1 + port) % HINTS;
	return hints.lookup(&place);
}

static inline int hinted(struct hint *hint, struct address *client, __u16 port)
{
	return hint->port == port && hint->client.word[0] == client->word[0] &&
	       hint->client.word[1] == client->word[1] && hint->client.word[2] == client->word[2] &&
	       hint->client.word[3] == client->word[3];
}

/* A request for a connection has come to a listener here: that client's peer is on this node. */
static inline void expect(struct bpf_sock_ops *ops, __u16 who)
{
	struct address ours = {}, client = {};
	__u16 port = bpf_ntohl(ops->remote_port);
	struct hint *hint;
	write_addresses(ops, &ours, &client);
	hint = hint_of(&client, port);
	if (!hint || (hint->who >= who && hinted(hint, &client, port)))
		return;
	hint->client = client;
	hint->port = port;
	hint->who = who;
}

/* Whose listener its request has come to; 0: none of this node. */
static inline __u16 expected(struct half *client)
{
	struct hint *hint = hint_of(&client->local, client->local_port);
	__u16 who;
	if (!hint || !hinted(hint, &client->local, client->local_port))
		return 0;
	who = hint->who;
	hint->who = 0;
	return who;
}

/* FNV-1a over words, of the command line as far as it is looked at, with zeros behind. */
static inline __u64 current_command(void)
{
	__u64 words[COMMAND / 8] = {};
	__u64 mm = pointer(bpf_get_current_task(), OFFSET_MM), found = 0xcbf29ce484222325;
	__u64 start, size;
	int index;
	if (!mm)
		return 0;
	start = pointer(mm, OFFSET_ARG_START);
	size = pointer(mm, OFFSET_ARG_END) - start;
	if (size > COMMAND)
		size = COMMAND;
	if (bpf_probe_read_user(words, size, (void *)start))
		return 0;
#pragma unroll
	for (index = 0; index < COMMAND / 8; index++)
		found = (found ^ words[index]) * 0x100000001b3;
	return found;
}

static inline void describe(struct bpf_sock_ops *ops, struct half *end)
{
	end->sock = (__u64)ops->sk;
	end->netns = bpf_get_netns_cookie(ops);
	end->local_port = ops->local_port;
	end->remote_port = bpf_ntohl(ops->remote_port);
	end->start = ops->rcv_nxt;
	write_addresses(ops, &end->local, &end->remote);
}

/* In the context of the process that connects, or listens. */
static inline void note_maker(struct bpf_sock_ops *ops, struct scope *s)
{
	struct bpf_sock *sk = ops->sk;
	struct own fresh = {};
	struct own *own;
	if (!sk)
		return;
	fresh.tag.cgroup = bpf_get_current_cgroup_id();
	fresh.tag.command = current_command();
	bpf_get_current_comm(fresh.tag.name, sizeof(fresh.tag.name));
	/* To choose by names it has to be known later. */
	if (ops->op == BPF_SOCK_OPS_TCP_CONNECT_CB && !s->names && left_alone(s, &fresh.tag) &&
	    !owns.sk_storage_get(sk, 0, 0)) {
		bpf_sock_ops_cb_flags_set(ops, ops->bpf_sock_ops_cb_flags | MARK);
		return;
	}
	own = owns.sk_storage_get(sk, &fresh, BPF_SK_STORAGE_GET_F_CREATE);
	if (own)
		own->tag = fresh.tag;
}

static inline void begins(struct bpf_sock_ops *ops, struct scope *s)
{
	struct bpf_sock *sk = ops->sk;
	struct own *own = sk ? owns.sk_storage_get(sk, 0, 0) : 0;
	struct half end = {};
	if (own && own->id)
		over(own); /* it was connected before */
	describe(ops, &end);
	if (ops->op == BPF_SOCK_OPS_TCP_LISTEN_CB || s->around || asks_in_scope(s, &end))
		note_maker(ops, s);
}

/* The socket is an end of this pair from now on. */
static inline void join(struct bpf_sock_ops *ops, struct own *own, __u64 id, __u32 side)
{
	own->id = id;
	own->side = side;
	own->self = (__u64)ops->sk;
	own->peer = own->taken = 0;
	own->calls = own->enrolled = own->otherwise = own->judged = 0;
	own->start = ops->rcv_nxt;
}

/* on_socket is asked for what becomes of the socket. */
static inline void watch(struct bpf_sock_ops *ops)
{
	bpf_sock_ops_cb_flags_set(ops, ops->bpf_sock_ops_cb_flags | WATCHED);
}

/* 0 if the socket is in the map now. */
static inline __u32 enrol(struct bpf_sock_ops *ops, struct scope *s, struct own *own,
			  struct half *client)
{
	struct member member = {};
	struct place place = {};
	__u64 cookie;
	long failed;
	__u32 why = unsound(s, &own->tag);
	if (!why && word(own->self, OFFSET_LOW_WATER) > 1)
		why = SPLICE_READS_OTHERWISE;
	if (why || (s->dry && !client->around))
		return why;
	place.id = member.id = own->id;
	place.side = own->side;
	failed = spliced.sock_hash_update(ops, &place, BPF_NOEXIST);
	if (failed)
		return SPLICE_ENROL_FAILED;
	member.arrived = own->start;
	member.side = own->side;
	cookie = bpf_get_socket_cookie(ops);
	/* The map loses its programs with the process, and an end without them is read wrongly. */
	if (!pointer(pointer(own->self, OFFSET_USER_DATA) & ~7ULL, OFFSET_PROGRAMS))
		why = SPLICE_UNWATCHED;
	else if (enrolled.update(&cookie, &member))
		why = SPLICE_ENROL_FAILED;
	if (why)
		spliced.delete(&place);
	own->enrolled = !why;
	return why;
}

/* By what a client asks for: a server that was left alone. */
static inline void ask(struct asked *asked, struct half *client)
{
	asked->client = client->tag;
	asked->server = client->remote;
	asked->netns = client->netns;
	asked->port = client->remote_port;
}

/* Why the server that is asked will be left alone; 0: it is to be looked at. */
static inline __u32 declines(struct half *client)
{
	struct asked asked = {};
	struct declined *declined;
	ask(&asked, client);
	declined = servers.lookup(&asked);
	if (!declined || bpf_ktime_get_ns() - declined->since > UNASKED)
		return 0;
	return declined->why;
}

static inline void declined(struct half *client, __u32 why)
{
	struct asked asked = {};
	struct declined fresh = {.why = why, .since = bpf_ktime_get_ns()};
	ask(&asked, client);
	servers.update(&asked, &fresh);
}

/* Why nothing is to be followed of a connection that this client has made; 0: it is. */
static inline __u32 unfollowed(struct scope *s, struct half *client)
{
	if (left_alone(s, &client->tag))
		return SPLICE_READS_OTHERWISE;
	return s->dry || unsound(s, &client->tag) ? 0 : declines(client);
}

static inline void client_established(struct bpf_sock_ops *ops, struct scope *s, __u32 place)
{
	__u64 id = (__u64)ops->snd_nxt << 32 | ops->rcv_nxt;
	struct bpf_sock *sk = ops->sk;
	struct pair *pair = 0;
	struct half end = {};
	struct own none = {};
	struct own *own;
	__u32 why, who, zero = 0;
	if (!sk)
		return;
	describe(ops, &end);
	who = expected(&end);
	if (!who)
		return;
	if (!s->around && !asks_in_scope(s, &end)) {
		add(SPLICE_OUT_OF_SCOPE, 1);
		return;
	}
	own = owns.sk_storage_get(sk, 0, 0);
	if (own)
		end.tag = own->tag;
	end.around = s->around && (who == AROUND || end.tag.cgroup == s->around);
	if (!end.around && (who != WITHIN || place != WITHIN))
		return;
	if (!end.around && !in_scope(s, &end)) {
		add(SPLICE_OUT_OF_SCOPE, 1);
		return;
	}
	if (ops->snd_una != ops->snd_nxt) {
		add(SPLICE_FAST_OPEN, 1);
		return;
	}
	if (!own && ops->bpf_sock_ops_cb_flags & MARK)
		why = SPLICE_READS_OTHERWISE;
	else
		why = unfollowed(s, &end);
	if (why) {
		add(why, 1);
		return;
	}
	if (!own)
		own = owns.sk_storage_get(sk, &none, BPF_SK_STORAGE_GET_F_CREATE);
	pair = blank.lookup(&zero);
	if (!own || !pair)
		return;
	pairs.insert(&id, pair);
	pair = pairs.lookup(&id);
	if (!pair) {
		add(SPLICE_PAIRS_FULL, 1);
		return;
	}
	join(ops, own, id, CLIENT);
	why = enrol(ops, s, own, &end);
	if (why)
		add(why, 1);
	end.enrolled = own->enrolled;
	end.why = why;
	/* Its ACK is still to be sent, and judged; the SYN has been, perhaps long ago. */
	end.generation = s->generation;
	pair->end[CLIENT] = end;
	if (end.enrolled)
		watch(ops);
}

static inline void server_established(struct bpf_sock_ops *ops, struct scope *s)
{
	__u64 id = (__u64)ops->rcv_nxt << 32 | ops->snd_nxt;
	struct bpf_sock *sk = ops->sk;
	struct address ours = {}, theirs = {};
	struct own none = {};
	struct half *client, *server;
	struct own *own;
	struct pair *pair;
	__u32 why;
	if (!sk)
		return;
	pair = pairs.lookup(&id);
	if (!pair || pair->since)
		return;
	client = &pair->end[CLIENT];
	server = &pair->end[SERVER];
	write_addresses(ops, &ours, &theirs);
	if (client->local_port != (__u16)bpf_ntohl(ops->remote_port) ||
	    family(&client->local) != family(&theirs))
		return;
	own = owns.sk_storage_get(sk, &none, BPF_SK_STORAGE_GET_F_CREATE);
	if (!own)
		return;
	describe(ops, server);
	server->tag = own->tag;
	if (!server_in_scope(s, client, server)) {
		add(SPLICE_OUT_OF_SCOPE, 1);
		pairs.delete(&id);
		return;
	}
	join(ops, own, id, SERVER);
	/* What came before this socket is accepted would stay out of the one queue until the first
	 * read, and FIONREAD would not show it. */
	if (word(client->sock, OFFSET_WRITE_SEQ) != ops->rcv_nxt)
		why = SPLICE_FAST_OPEN;
	else
		why = client->enrolled ? enrol(ops, s, own, client) : 0;
	if (why)
		add(why, 1);
	if (why == SPLICE_READS_OTHERWISE || why == SPLICE_UNKNOWN)
		declined(client, why);
	server->enrolled = own->enrolled;
	server->why = why;
	pair->spliceable = client->enrolled && own->enrolled;
	pair->relayed = client->around;
	pair->way[CLIENT].generation = pair->way[CLIENT].asked = client->generation;
	pair->way[SERVER].generation = pair->way[SERVER].asked = client->generation;
	pair->since = bpf_ktime_get_ns();
	add(SPLICE_PAIRED, 1);
	if (client->enrolled)
		watch(ops);
}
