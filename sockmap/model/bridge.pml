/* Straight from a sender's socket C to the far end S, past the relay's sockets P1 and P2 between them:
 *
 *   C --hop 1--> P1  relay  P2 --hop 2--> S        and, while the bridge is open, C ------> S
 *
 * What handover.pml shows of one pair is taken for granted here: a hop keeps the order of what it was given. README.md
 * says what is modelled, and how to run it. Every step may be delayed for ever. */

#ifndef MSGS
#define MSGS 5        /* messages that C sends, of one byte */
#endif
#ifndef THREADS
#define THREADS 1     /* threads that send through C; thread t sends messages t, t + THREADS, ... */
#endif
#ifndef BUDGET
#define BUDGET 1      /* messages in S's queue beyond which nothing is put there */
#endif
#ifndef BODY
#define BODY 100      /* bytes of a body, which may pass; what follows is judged by the relay */
#endif

#define COUNTED (BODY < MSGS)
#define HAS(set, b) (((set) >> (b)) & 1)

bit locked;           /* lock_sock(C) */
byte given;           /* bytes that C has given to hop 1: write_seq less what it began with, and way->spliced */
byte read;            /* of these, what the relay has read */
byte p2_given;        /* bytes that S will have read when it has read all: by P2, and straight */
byte write_seq;       /* of P2: what it has given to the stack */
byte copied_seq;      /* of S: what it has read of that */
byte taken;           /* bytes that S has read */
byte straight;        /* bytes that have gone straight */
byte expected;        /* p2_given at the last of them */
bit open;             /* there is a bridge */
byte base;
byte limit;           /* of `straight` */
byte body;            /* bytes of the body that S has read */
short done, got, before[MSGS];

chan hop1 = [MSGS] of { byte };
chan hop2 = [MSGS] of { byte, bit };       /* P2's stack; the bit: it is behind the body */
chan queue = [MSGS] of { byte, bit, bit }; /* S's psock: the last bit: it came by the stack */

#ifdef M_NOBASE
#define SAME 1
#else
#define SAME (given == base)
#endif
#ifdef M_NOCLEAN
#define CLEAN 1
#else
#define CLEAN (write_seq == copied_seq)
#endif
#ifdef M_NOLIMIT
#define WITHIN 1
#else
#define WITHIN (!COUNTED || straight < limit)
#endif
#ifdef M_NOWAIT
#define SETTLED 1
#else
#define SETTLED (!COUNTED || !straight || taken >= expected)
#endif

proctype Sender(byte t) {
	byte m = t, looked;
	bit crosses;
	do
	:: m < MSGS ->
		before[m] = done;
		atomic { !locked -> locked = 1 }
		/* on_send(): nobody else's lock is held, so S reads on meanwhile, and the relay may open the bridge. */
		crosses = open && SAME && WITHIN;
		atomic {
			crosses = crosses && CLEAN && len(queue) <= BUDGET;
			if
			:: crosses -> straight++; p2_given++; expected = p2_given
			:: else -> open = open && SAME; given++
			fi;
#ifdef W_STRAIGHT
			assert(!crosses);
#endif
#ifdef W_AGAIN
			assert(!crosses || !given);
#endif
			locked = 0                              /* tcp_bpf_send_verdict(): before it is in the queue */
		}
		if
		:: crosses -> queue ! m, 0, 0
		:: else -> hop1 ! m
		fi;
		atomic {
			done = done | (1 << m);
			m = m + THREADS;
			crosses = 0
		}
	:: else -> break
	od
}

/* Reads, writes what it has read, and opens the bridge when there is nothing in its hands. */
proctype Relay() {
	byte m;
	bit judged;
	if
	:: limit = BODY; open = 1                       /* base 0: a body's, or a tunnel's, first byte */
	:: skip
	fi;
end:
	do
	:: hop1 ? m ->
		read++;
#ifdef M_EARLY
		base = read; limit = straight + BODY; open = 1;
#endif
		SETTLED;                                    /* the relay waits until S has read what went straight */
		judged = COUNTED && straight + read > BODY; /* C's lock has seen to it that `straight` is final */
		if
		:: write_seq == copied_seq -> atomic { queue ! m, judged, 0; p2_given++ }
		:: atomic { hop2 ! m, judged; write_seq++; p2_given++ }
		fi;
#ifndef M_EARLY
		if
		:: !judged -> atomic { base = read; limit = BODY - read; open = 1 }
		:: skip
		fi
#endif
	od
}

proctype Softirq() {
	byte m;
	bit judged;
end:
	do
	:: atomic { hop2 ? m, judged -> queue ! m, judged, 1; m = 0; judged = 0 }
	od
}

proctype Reader() {
	byte m;
	bit judged, stack;
	do
	:: got == (1 << MSGS) - 1 -> break              /* else it waits for ever, which is an error: a byte is lost */
	:: atomic {
		queue ? m, judged, stack ->
		assert(!HAS(got, m));
		assert((got & before[m]) == before[m]);     /* what was sent before comes before */
		assert(!judged || body == BODY);            /* nothing that was judged as behind the body is in it */
		assert(judged || !COUNTED || body < BODY);
		got = got | (1 << m);
		body = body + !judged
	}
		copied_seq = copied_seq + stack;
		atomic { taken++; m = 0; judged = 0; stack = 0 }
	od
}

init {
	byte t = 0;
	atomic {
		do
		:: t < THREADS -> run Sender(t); t++
		:: else -> break
		od;
		run Relay();
		run Softirq();
		run Reader()
	}
}
