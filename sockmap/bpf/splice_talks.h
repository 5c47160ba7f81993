/* What became of connections that have ended, by who talked to whom. */
struct talk_key {
	struct tag client, server;
	__u16 port; /* that the client asked for */
	__u16 pad[3];
};

struct talk {
	__u64 connections;
	__u64 spliced, stack; /* bytes */
};

BPF_TABLE("lru_hash", struct talk_key, struct talk, talks, 4096);

static inline void pair_ended(struct pair *pair)
{
	struct talk_key key = {};
	struct talk fresh = {}, *talk;
	/* What the stack alone has served: its bytes are those that recv took. */
	__u64 left = pair->spliceable ? 0 : pair->taken[CLIENT] + pair->taken[SERVER];
	add(SPLICE_ENDED, 1);
	add(SPLICE_LEFT_BYTES, left);
	key.client = pair->end[CLIENT].tag;
	key.server = pair->end[SERVER].tag;
	key.client.command = key.server.command = 0;
	key.port = pair->end[CLIENT].remote_port;
	talk = talks.lookup_or_try_init(&key, &fresh);
	if (!talk)
		return;
	__sync_fetch_and_add(&talk->connections, 1);
	__sync_fetch_and_add(&talk->spliced, pair->way[CLIENT].spliced + pair->way[SERVER].spliced);
	__sync_fetch_and_add(&talk->stack,
			     pair->way[CLIENT].stack + pair->way[SERVER].stack + left);
}
