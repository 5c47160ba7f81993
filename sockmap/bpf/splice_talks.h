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

static inline void pair_ended(__u64 id, struct pair *pair)
{
	struct talk_key key = {};
	struct talk fresh = {}, *talk;
	struct place from = {.id = id};
	__u32 relayed;
	/* What the stack alone has served: its bytes are those that recv took. */
	__u64 left = pair->spliceable ? 0 : pair->taken[CLIENT] + pair->taken[SERVER];
	__u64 by_map = pair->way[CLIENT].spliced + pair->way[SERVER].spliced;
	__u64 by_stack = pair->way[CLIENT].stack + pair->way[SERVER].stack + left;
	key.client = pair->end[CLIENT].tag;
	key.server = pair->end[SERVER].tag;
	key.client.command = key.server.command = 0;
	key.port = pair->end[CLIENT].remote_port;
	relayed = pair->relayed;
	if (pairs.delete(&id)) /* the other end has, at the same time */
		return;
	if (relayed) {
		bridges.delete(&from);
		from.side = SERVER;
		bridges.delete(&from);
	}
	add(SPLICE_ENDED, 1);
	add(SPLICE_LEFT_BYTES, left);
	talk = talks.lookup_or_try_init(&key, &fresh);
	if (!talk)
		return;
	__sync_fetch_and_add(&talk->connections, 1);
	__sync_fetch_and_add(&talk->spliced, by_map);
	__sync_fetch_and_add(&talk->stack, by_stack);
}
