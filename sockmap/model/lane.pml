/* The fast path: a client C, the relay between its sockets P1 and P2, a server S; and lanes, by which known messages of
 * C's go straight to S, and S's answers straight to C, each leaving a note (docs/fastpath.md):
 *
 *   C --to_relay--> P1  relay  P2 --by_stack[0]--> S        and, while the request lane is open,  C ------> S
 *   S --answers---> P2  relay  P1 --by_stack[1]--> C        and, while the response lane is open, S ------> C
 *
 * What handover.pml shows of one pair is taken for granted here. README.md says what is modelled, and how to run it.
 * Every step may be delayed for ever. */

#ifndef MSGS
#define MSGS 3        /* messages that C sends; S, or the relay, answers each, in their order */
#endif
#ifndef PARTS
#define PARTS 1       /* sends of a message, 1 or 2: its head, which is known or not, and what follows by count */
#endif
#ifndef THREADS
#define THREADS 1     /* threads that send through C */
#endif
#ifndef WINDOW
#define WINDOW MSGS   /* messages without an answer, at most (streams, in CQL) */
#endif
#ifndef POLICIES
#define POLICIES 1    /* times that the relay shuts both lanes of its own accord */
#endif

#define UNITS (MSGS * PARTS)
#define MESSAGE(unit) ((unit) / PARTS)
#define HEAD(unit) ((unit) % PARTS == 0)
#define LAST(unit) ((unit) % PARTS == PARTS - 1)
#define NONE 255
#define SEVERAL 254
#define HAS(set, b) (((set) >> (b)) & 1)
#define RQ 0          /* from C to S */
#define RS 1          /* from S to C */

bit locked;           /* lock_sock(C) */
byte next;            /* the unit that is sent next, by whoever gets the lock */
byte known;           /* messages that the programs know, which go straight if they may */
byte passed;          /* messages that the relay has decided to pass */

bit open[2];          /* struct lane_way: epoch */
byte base[2];         /* and base */
byte made[2];         /* and made: notes */
byte left;            /* units to come of the message that has begun to go straight */
byte stamped;         /* notes of requests that have their time */
byte asked[MSGS];     /* notes: the message */
byte told[MSGS];
byte then[MSGS];      /* of an answer's: `stamped` at its time */
bit deciding;         /* S's begun != decided */
byte thread = NONE;   /* whose sends alone may be on their way to S's queue; or SEVERAL */
bit torn;             /* one of those holds a part of a message */

byte given[2];        /* what the sender has given to the relay's socket beside it */
byte target[2];       /* what the target will have read when it has read all: by the relay's socket, and straight */
byte taken[2];        /* what it has read of that */
byte expected[2];     /* target at the last that went straight */
bit straight[2];      /* something has */
byte got;             /* answers that C has */

chan to_relay = [UNITS] of { byte };
chan answers = [MSGS] of { byte };
chan stack_s = [UNITS] of { byte };        /* P2's stack */
chan stack_c = [MSGS] of { byte };
chan queue_s = [UNITS] of { byte };        /* S's psock */
chan queue_c = [MSGS] of { byte };
chan due = [MSGS] of { byte, bit };        /* the relay's list; the bit: the answer is its own */

#ifdef M_NOBASE
#define SAME(way) 1
#else
#define SAME(way) (given[way] == base[way])
#endif
#ifdef M_NOCOUNT
#define COUNTED(way) 1
#else
#define COUNTED(way) (taken[way] == target[way] || (straight[way] && expected[way] == target[way]))
#endif
/* landed(): all that the target was given has been read (pair->taken), or is in its queue (msg_tot_len) */
#ifdef M_QUEUEFIRST
#define SEEN len(queue_s)
#define LANDED (seen + taken[RQ] == target[RQ])
#else
#define SEEN taken[RQ]
#define LANDED (seen + len(queue_s) == target[RQ])
#endif
/* in_order() */
#define PART (PARTS > 1)
#ifdef M_TORN
#define IN_ORDER 1
#else
#define IN_ORDER (LANDED || thread == t || !(PART || torn))
#endif
#define READ(way) (!straight[way] || taken[way] >= expected[way])
#ifdef M_UNWRITTEN
#define WRITTEN 1
#else
#define WRITTEN (rest == NONE)                          /* all that was read of C */
#endif
#ifdef M_NOREADS
#define READ_S 1
#else
#define READ_S READ(RQ)
#endif
#ifdef M_NOREADC
#define READ_C 1
#else
#define READ_C READ(RS)
#endif
#ifdef M_NODECIDED
#define DECIDED 1
#else
#define DECIDED (!deciding)
#endif

/* C's sends: crossed(), under C's lock. */
proctype Sender(byte t) {
	byte u, seen;
	bit crosses, opened;
	do
	:: next == UNITS -> break
	:: atomic {
		!locked && next < UNITS && MESSAGE(next) < got + WINDOW ->
		locked = 1;
		u = next;
		next++;
		if
		:: HEAD(u) -> known = known | (1 << MESSAGE(u))
		:: HEAD(u)
		:: else
		fi
	}
		atomic { opened = open[RQ]; seen = SEEN }
		atomic {
			crosses = opened && SAME(RQ) && COUNTED(RQ) && IN_ORDER &&
			    (left || (HEAD(u) && HAS(known, MESSAGE(u))));
			if
			:: crosses && !left -> asked[stamped] = MESSAGE(u); stamped++
			:: else
			fi;
			if
			:: crosses && LANDED -> thread = t; torn = PART
			:: crosses && !LANDED && thread == t -> torn = torn || PART
			:: crosses && !LANDED && thread != t -> thread = SEVERAL
			:: else
			fi;
			opened = 0;
			seen = 0
		}
		atomic {
			if
			:: crosses ->
				if
				:: left -> left--
				:: else -> left = PARTS - 1; made[RQ]++
				fi;
				target[RQ]++;
				straight[RQ] = 1;
				expected[RQ] = target[RQ]
			:: else -> given[RQ]++; to_relay ! u
			fi;
#ifdef W_STRAIGHT
			assert(!crosses);
#endif
#ifdef W_AGAIN
			assert(!crosses || !given[RQ] || made[RQ] < 2);
#endif
			locked = 0                                  /* tcp_bpf_send_verdict(): before it is in the queue */
		}
		atomic {
			if
			:: crosses -> queue_s ! u
			:: else
			fi;
			crosses = 0;
			u = 0
		}
	od
}

/* S reads, and answers what is whole; some answers are of a kind that comes to the relay. */
proctype Server() {
	byte u, before, m;
	bit crosses, opened;
end:
	do
	:: atomic {
		queue_s ? u ->
		m = MESSAGE(u);
		assert(HEAD(u) == HEAD(before));            /* a message begins with what was judged as its beginning */
		assert(HAS(known | passed, m));             /* nobody has refused it */
		do                                          /* what was sent before has come, or is refused */
		:: before < u -> assert(!HAS(known | passed, MESSAGE(before))); before++
		:: else -> break
		od;
		assert(before == u);
		before++
	}
		atomic {
			taken[RQ]++;
			if
			:: !LAST(u) -> u = 0; m = 0; goto end
			:: else -> u = 0
			fi
		}
		deciding = 1;
		opened = open[RS];
		atomic {
			crosses = opened && SAME(RS) && COUNTED(RS);
			if
			:: crosses -> told[made[RS]] = m; then[made[RS]] = stamped
			:: crosses -> crosses = 0
			:: !crosses
			fi;
			opened = 0
		}
		atomic {
			if
			:: crosses -> made[RS]++; target[RS]++; straight[RS] = 1; expected[RS] = target[RS]
			:: else -> given[RS]++; answers ! m
			fi;
#ifdef W_ANSWER
			assert(!crosses);
#endif
#ifdef W_ANSWER_AGAIN
			assert(!crosses || !given[RS] || made[RS] < 2);
#endif
			deciding = 0
		}
		atomic {
			if
			:: crosses -> queue_c ! m
			:: else
			fi;
			crosses = 0;
			m = 0
		}
	od
}

proctype Client() {
	byte m;
	do
	:: got == MSGS -> break                             /* else it waits for ever, which is an error */
	:: atomic { queue_c ? m -> assert(m == got); m = 0 }
		atomic { taken[RS]++; got++ }
	od
}

proctype Softirq() {
	byte u;
end:
	do
	:: atomic { stack_s ? u -> queue_s ! u; u = 0 }
	:: atomic { stack_c ? u -> queue_c ! u; u = 0 }
	od
}

/* FastPath._try */
inline try_requests() {
	atomic {
		if
		:: !opened[RQ] && request == NONE && WRITTEN && !credit && !dropping ->
			since[RQ] = made[RQ];
			left = 0;
			base[RQ] = read[RQ];
			open[RQ] = 1;
			opened[RQ] = 1
		:: else
		fi
	}
}

inline try_responses() {
	atomic {
		if
		:: !opened[RS] && answer == NONE && !own ->
			since[RS] = made[RS];
			base[RS] = read[RS];
			open[RS] = 1;
			opened[RS] = 1
		:: else
		fi
	}
}

inline after() {
	try_requests();
	if
	:: opened[RQ] -> try_responses()
	:: else
	fi
}

/* FastPath.before, and the write of an answer to C. */
inline write_to_client() {
	assert(!opened[RS] && !open[RS]);                   /* bytes of our own while others may go straight */
	try_requests();
#ifdef M_EARLY
	try_responses();
#endif
	atomic { target[RS]++; stack_c ! m }
}

/* FastPath.work: from the notes to the list of what is due. */
inline work() {
#ifdef M_NOTES
	requests = made[RQ] - noted[RQ];
	heard = made[RS] - noted[RS];
	earlier = heard;
#else
	heard = made[RS] - noted[RS];
	requests = made[RQ] - noted[RQ];
#ifdef M_NOSECOND
	earlier = heard;
#else
	earlier = made[RS] - noted[RS];
#endif
#endif
	atomic {
		do
		:: (requests && earlier > 0 && then[noted[RS]] <= noted[RQ]) || (!requests && heard > 0) ->
			assert(due ?? [eval(told[noted[RS]]), 0]);      /* an answer to what nobody has asked for */
			due ? m, ours;
			assert(m == told[noted[RS]] && !ours);
			told[noted[RS]] = 0;
			then[noted[RS]] = 0;
			noted[RS]++;
			heard--;
			earlier--
		:: requests && !(earlier > 0 && then[noted[RS]] <= noted[RQ]) ->
			assert(asked[noted[RQ]] == heads);              /* each is told of once, in order */
			assert(len(due) < WINDOW);                      /* the answer that made room is known */
			due ! asked[noted[RQ]], 0;
			heads++;
			asked[noted[RQ]] = 0;
			noted[RQ]++;
			requests--
		:: !requests && heard <= 0 -> break
		od;
		heard = 0;
		earlier = 0;
		m = 0;
		ours = 0
	}
}

/* FastPath._settled */
inline settle_requests() {
	open[RQ] = 0;
	atomic {
		if
		:: opened[RQ] && (made[RQ] == since[RQ] && !left || READ_S) -> opened[RQ] = 0; credit = left
		:: opened[RQ] && !(made[RQ] == since[RQ] && !left || READ_S) -> settled = 0
		:: !opened[RQ]
		fi
	}
}

inline settle_responses(decided) {
	open[RS] = 0;
	if
	:: opened[RS] && !(decided) -> settled = 0
	:: opened[RS] && (decided) ->
		atomic {
			if
			:: made[RS] == since[RS] || READ_C -> opened[RS] = 0
			:: else -> settled = 0
			fi
		}
	:: !opened[RS]
	fi
}

/* Own answers whose turn has come. */
inline say_own() {
	do
	:: atomic { own && due ? [m, 1] -> due ? m, 1; own-- }
	   write_to_client()
	:: atomic { else -> m = 0; break }
	od
}

proctype Relay() {
	byte request = NONE, answer = NONE, rest = NONE;    /* in its hands */
	bit request_held, answer_held;
	bit opened[2];
	byte read[2], since[2], noted[2];
	byte heads;                                         /* messages of which it knows */
	byte own;                                           /* answers of its own that are due */
	byte credit, dropping, m, policies;
	short heard, requests, earlier;
	bit settled, ours, fresh;
	if
	:: after()
	:: skip
	fi;
end:
	do
	:: atomic { request == NONE && nempty(to_relay) -> to_relay ? request; read[RQ]++ }
	   goto request_came;
	:: atomic {                                         /* it is looked at again and again */
		request_held && (!opened[RQ] || made[RQ] == since[RQ] && !left || READ_S) &&
		    (!opened[RS] || (DECIDED && (made[RS] == since[RS] || READ_C)))
	   }
request_came:
		settled = 1;
		if
		:: opened[RQ] || opened[RS] ->
			open[RQ] = 0;
#ifdef M_ONEWAY
			settle_requests();
#else
			open[RS] = 0;
			settle_requests();
			if
			:: settled -> settle_responses(DECIDED)
			:: else
			fi;
#endif
			work()
		:: else
		fi;
		if
		:: !settled -> request_held = 1; goto end
		:: else -> request_held = 0; settled = 0
		fi;
decide:
		if                                              /* Relay._take */
		:: credit -> credit--; fresh = 1
		:: !credit && dropping -> dropping--
		:: !credit && !dropping ->
			assert(MESSAGE(request) == heads && HEAD(request));
			heads++;
			atomic {
				assert(len(due) < WINDOW);
				if
				:: due ! MESSAGE(request), 0;
					passed = passed | (1 << MESSAGE(request));
					credit = PARTS - 1;
					fresh = 1
				:: !HAS(known, MESSAGE(request)) ->
					due ! MESSAGE(request), 1;
					own++;
					dropping = PARTS - 1
				fi
			}
		fi;
		if
		:: fresh ->
			assert(!opened[RQ] && !open[RQ]);
			atomic { target[RQ]++; stack_s ! request; fresh = 0 }
		:: else
		fi;
		request = NONE;
#ifdef BATCH
		if                                              /* one more that was read with it */
		:: atomic { nempty(to_relay) -> to_relay ? rest; read[RQ]++ }
		:: skip
		fi;
#endif
		say_own();
#ifdef BATCH
		if
		:: rest != NONE -> atomic { request = rest; rest = NONE; goto decide }
		:: else
		fi;
#endif
		after()
	:: atomic { answer == NONE && nempty(answers) -> answers ? answer; read[RS]++ }
	   goto answer_came;
	:: atomic { answer_held && (!opened[RS] || made[RS] == since[RS] || READ_C) }
answer_came:
		settled = 1;
		if
		:: opened[RQ] || opened[RS] ->
			settle_responses(1);                        /* bytes of its sender are at hand */
			work()
		:: else
		fi;
		if
		:: !settled -> answer_held = 1; goto end
		:: else -> answer_held = 0; settled = 0
		fi;
		atomic {
			due ? m, ours;
			assert(m == answer && !ours);
			answer = NONE
		}
		write_to_client();
		say_own();
		after()
	:: made[RQ] != noted[RQ] || made[RS] != noted[RS] -> work()                    /* FastPath.look */
	:: atomic { policies < POLICIES && (open[RQ] || open[RS]) -> policies++ }      /* FastPath.shut */
		open[RQ] = 0;
		open[RS] = 0
	od
}

init {
	byte t;
	atomic {
		do
		:: t < THREADS -> run Sender(t); t++
		:: else -> break
		od;
		run Server();
		run Client();
		run Softirq();
		run Relay()
	}
}
