/* What the programs that splice know, and share with user space. Addresses as in maps.h: IPv4 as
 * ::ffff:a.b.c.d. */
#include <uapi/linux/bpf.h>
#include <uapi/linux/in.h>

#define CLIENT 0
#define SERVER 1

/* What scope_names and scope.names say. */
#define CHOSEN	   1
#define LEFT_ALONE 2

struct address {
	__be32 word[4];
};

#define COMMAND 128 /* bytes of a command line that tell programs apart */

/* Who has made a socket: programs are told apart by their cgroup, name, and command line: what many
 * programs share are the names of their interpreters. */
struct tag {
	__u64 cgroup;
	char name[16];
	__u64 command; /* a number made of it; 0: not known */
};

/* How the sockets of a tag were seen to be read. */
struct style {
	__u64 reads;
	__u32 sound;	 /* connections of which every byte was taken by plain recv */
	__u32 otherwise; /* connections that were not */
};

/* One end of a connection, as it is at its establishment. */
struct half {
	struct tag tag;
	__u64 sock;
	__u64 netns;
	struct address local, remote;
	__u16 local_port, remote_port;
	__u32 start;	/* the sequence number of the first byte that it reads */
	__u32 enrolled; /* in the map of sockets */
	__u16 chosen;	/* by its name */
	__u16 why;	/* it is not */
	__u32 generation;
	__u32 around; /* the pair is spliced for an end in the cgroup `around` */
};

/* A client that has asked a listener of this node. */
struct hint {
	struct address client;
	__u16 port, who;
	__u32 pad;
};

struct way {
	__u64 spliced, stack; /* bytes */
	__u32 flips;	      /* from the stack to redirection */
	__u32 budget_hits;
	__u32 last; /* why the last send that went to the stack did */
	__u32 redirecting;
	__u64 mark;	    /* of `spliced` */
	__u32 older, newer; /* messages before and since the mark */
	__u32 quiet;	    /* bytes that the stack had been given when all was read last */
	__u32 streamed;	    /* bytes by the stack, less what was spliced: see splice_leave.h */
	__u64 leaving; /* since when nothing is spliced to this end, in nanoseconds; 0: it is */
	__u32 left;    /* this end is out of the map of sockets */
	__u32 begun,
	    decided;	  /* sends that have come, and of which it is settled which way they go */
	__u32 generation; /* of the policy that the stack was judged by */
	__u32 asked; /* that it is to be judged by: what it is given from `since` on shows it */
	__u32 since; /* write_seq */
	__u64 at;    /* when the last small message came, in nanoseconds */
	__u64 heard; /* bytes that the reader had sent by then */
	__u32 run;   /* small messages right behind each other */
	__u32 small; /* bytes of small messages, as of `streamed` */
};

/* Bytes that the reader has not taken: all, and those that the stack was given. */
struct waiting {
	__u32 bytes, by_stack;
};

/* What has gone to an end's peer past it, though it counts as sent by it. */
struct straight {
	__u64 bytes;
	__u32 expected; /* bytes that the peer will have read when it has read these */
	__u32 pad;
};

/* By the two ends' sequence numbers at establishment, which name a connection whatever became of
 * its addresses on the way. `way[side]`, `straight[side]`: what that end has sent. */
struct pair {
	struct half end[2];
	struct way way[2];
	struct straight straight[2];
	__u64 since;	/* nanoseconds since boot; 0: the server's end has not come yet */
	__u64 taken[2]; /* bytes, by side, by recv */
	__u32 cpu[2];	/* of the last read, by side */
	__u32 spliceable;
	__u32 gone[2]; /* by side: seconds since boot; 0: it is there */
	__u32 deaf[2]; /* by side: closed, or shut down in both directions */
	__u32 relayed; /* an end is a relay's: of the cgroup `around` */
	__u32 ended;   /* ends that are gone */
	__u32 pad;
};

struct place {
	__u64 id;
	__u32 side;
	__u32 pad;
};

/* By the place of the sender. The relay alone writes it; it is shut by itself as soon as the sender
 * has given anything to the relay that this does not count. */
struct bridge {
	struct place target;
	__u64 limit; /* of the bytes gone straight in this direction; 0: none */
	__u32 base;  /* bytes that the relay has read of the sender, and written on */
	__u32 lane;  /* its place and one more, and it says what `base` says here; 0: none */
	__u64 nonce; /* of the lane */
	__u32 over;  /* it is shut, by the programs */
	__u32 pad;
};

#define NOTES  512 /* messages of one direction that wait to be told of */
#define PREFIX 128 /* bytes of a request that say what it asks for, at most */
#define SHAPES 4
#define SAMPLE 32 /* bytes */

/* Requests whose first `size` bytes say what they ask for, but for those that the mask leaves out.
 * `tail`: how what follows is looked at. It is written once, `size` last. */
struct shape {
	__u32 size, tail;
	__u64 mask[PREFIX / 8];
};

/* Where the programs are in what is sent: in memory, of which the verifier thinks nothing, or it
 * would follow each turn of a loop by itself. */
struct scan {
	__u32 place, have, size, made, length, stop;
};

/* One direction of a lane. The relay writes `epoch` (of this opening; 0: shut), `base`, `read`,
 * `bound`, the programs the rest, under the sender's lock. */
struct lane_way {
	__u32 epoch;
	__u32 base;  /* bytes that the relay has read of the sender, and written on */
	__u32 read;  /* notes that it has read */
	__u32 bound; /* of requests made, less answers made: then there are enough under way */
	__u32 shut;  /* the opening that is over */
	__u32 made;  /* notes */
	__u32 left; /* bytes of the message that has begun; the relay clears it before an opening */
	struct scan scan;
	__u32 thread; /* whose sends alone may be on their way to the target's queue; or SEVERAL */
	__u32 torn;   /* one of those holds a part of a message */
};

struct request_note {
	__u64 at; /* nanoseconds of the machine's clock */
	__u32 id;
	__u32 number; /* of what it asks for */
};

struct answer_note {
	__u64 at;
	__u32 id;
	__u32 size; /* of the sample */
	__u8 sample[SAMPLE];
};

struct known_key {
	__u64 group;
	__u32 size, tail;
	__u64 words[PREFIX / 8];
};

/* What is known of a request: its number in its group, and what `tail` asks for. */
struct known {
	__u32 number;
	__u32 values, rest;
	__u32 pad;
};

/* A connection on which requests that are known to be allowed, and answers, may go straight. All
 * messages have their length (32 bits, most significant byte first) at `length_at`, and are `more`
 * bytes longer, `most` bytes in all; their first `head` bytes are needed. An id of `id_size` bytes
 * at id_at[way] pairs requests and answers. Answers whose first bytes are others than these come to
 * the relay. */
struct lane {
	__u64 nonce; /* of the connection that has this place now; 0: none */
	__u64 group; /* of what is allowed */
	__u64 until; /* nanoseconds of the machine's clock, after which nothing is */
	__u32 length_at, more, most, head, id_size, id_at[2];
	__u32 segments; /* CQL's of version 5, not compressed, around the messages */
	__u64 answer_mask[2], answer[2];
	struct lane_way way[2];
	struct shape shapes[SHAPES];
	struct known_key key; /* the programs' scratch space, under the client's lock */
	struct request_note requests[NOTES];
	struct answer_note answers[NOTES];
};

/* What belongs to a socket: who has made it, its place in a pair, and how it is read. */
struct own {
	struct tag tag;
	__u64 id;	  /* of its pair; 0: it is in none */
	__u64 self, peer; /* struct sock */
	__u32 side;
	__u32 enrolled; /* in the map of sockets, or taken out of it again */
	__u64 taken;	/* bytes, by recv */
	__u32 calls;
	__u32 start;	 /* the sequence number of the first byte */
	__u32 otherwise; /* not by plain recv */
	__u32 judged;
};

/* A socket in the map of sockets. */
struct member {
	__u64 id;
	__u32 arrived; /* the sequence number behind what has come by the stack */
	__u32 side;
};

/* Whom a client asks. A pod's sidecar and its application ask the same address and mean others. */
struct asked {
	struct tag client;
	struct address server;
	__u64 netns;
	__u16 port;
	__u16 pad[3];
};

/* That a server which was asked is left alone, and since when, in nanoseconds. */
struct declined {
	__u64 since;
	__u32 why;
	__u32 pad;
};

struct scope {
	__u32 on;	/* 0: all that is spliced goes back to the stack */
	__u32 dry;	/* pairs are only counted */
	__u32 untaught; /* splice without having seen how a program reads */
	__u32 anywhere; /* whatever address the client has asked for */
	__u32 ports;	/* only those of the map */
	__u32 netns;
	__u32 names;	  /* CHOSEN: only pairs with one of them */
	__u32 budget;	  /* bytes */
	__u32 blocking;	  /* programs whose reads wait are spliced as well */
	__u32 generation; /* of the policy that packets are judged by */
	__u64 around;	  /* all pairs with an end in this cgroup, whose way of reading is known */
};

/* What a hint says of the listener; the most that is known counts. */
#define SOMEBODY 1
#define WITHIN	 2 /* in a cgroup that is chosen */
#define AROUND	 3
/* They live for the time of a handshake: a later one in the same place takes it. */
#define HINTS 16384

BPF_ARRAY(scope, struct scope, 1);
BPF_HASH(scope_ports, __u16, __u32, 1024);
BPF_HASH(scope_netns, __u64, __u32, 1024);
BPF_HASH(scope_names, struct tag, __u32, 1024); /* cgroup 0 */
BPF_TABLE("percpu_array", __u32, __u64, splice_counts, 64);
BPF_ARRAY(hints, struct hint, HINTS);
BPF_TABLE("lru_hash", struct tag, struct style, styles, 4096);
BPF_TABLE("lru_hash", struct asked, struct declined, servers, 4096); /* that are left alone */
BPF_F_TABLE("hash", __u64, struct pair, pairs, PAIRS, BPF_F_NO_PREALLOC);
BPF_ARRAY(blank, struct pair, 1); /* noughts: too many for the stack */
BPF_F_TABLE("hash", __u64, struct member, enrolled, 2 * PAIRS, BPF_F_NO_PREALLOC); /* by cookie */
/* What looks for pairs while the process lives, with which this is emptied: from then on nothing
 * but their states would tell of the end of those that are left to the stack. */
BPF_PROG_ARRAY(watched, 3); /* by the place: SOMEBODY, WITHIN */
BPF_F_TABLE("hash", struct place, struct bridge, bridges, 2 * PAIRS, BPF_F_NO_PREALLOC);
BPF_F_TABLE("array", __u32, struct lane, lanes, LANES, BPF_F_MMAPABLE);
BPF_F_TABLE("hash", struct known_key, struct known, known, KNOWN, BPF_F_NO_PREALLOC);
BPF_SOCKHASH(spliced, struct place, 2 * PAIRS);

/* BPF_SK_STORAGE with BPF_F_CLONE: what a listener has, its connections get. */
struct owns_table_t {
	int key;
	struct own leaf;
	void *(*sk_storage_get)(void *, void *, int);
	int (*sk_storage_delete)(void *);
	u32 flags;
};
__attribute__((section("maps/sk_storage"))) struct owns_table_t owns = {
    .flags = BPF_F_NO_PREALLOC | BPF_F_CLONE,
};
BPF_ANNOTATE_KV_PAIR(owns, int, struct own);
