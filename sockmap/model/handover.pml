/* The hand-over between the TCP stack and redirect, of one pair of spliced sockets. README.md says what is modelled,
 * which properties are checked and how to run it.
 *
 * End s sends, end r = 1 - s receives. A step that the kernel does under a lock, and that nobody else can see half
 * done, is atomic here; every other step may be delayed for ever. Names of functions are those of Linux 6.18:
 * net/ipv4/tcp_bpf.c, net/core/skmsg.c, net/core/sock_map.c, net/ipv4/tcp*.c. */

#ifndef MSGS
#define MSGS 4        /* messages that an end sends */
#endif
#ifndef LEN
#define LEN 1         /* bytes of a message */
#endif
#ifndef THREADS
#define THREADS 1     /* threads that send through the same socket; thread t sends messages t, t + THREADS, ... */
#endif
#ifndef DIRS
#define DIRS 1        /* 2: both ends send */
#endif
#ifndef BUDGET
#define BUDGET 1      /* bytes in the receiver's psock queue beyond which we go over to the stack */
#endif
#ifndef SNDBUF
#define SNDBUF 2      /* bytes that the stack holds for a sender: sk_stream_memory_free() */
#endif
#ifndef RCVBUF
#define RCVBUF 3      /* bytes that the stack lets a receiver hold: tcp_try_rmem_schedule() */
#endif
#ifndef FAILS
#define FAILS 0       /* allocations in softirq that fail: alloc_sk_msg(GFP_ATOMIC), skb_linearize() */
#endif
#ifndef TOGGLES
#define TOGGLES 1     /* how often the accelerator is stopped, and started again */
#endif

#define ROOM (BUDGET + LEN * THREADS)
#define FIN 100
#define RST 101

typedef End {
	bit locked;       /* lock_sock() */
	/* as a sender */
	byte write_seq;   /* tcp_sock.write_seq: bytes given to the stack, the FIN too; redirected ones are none */
	bit down;         /* sk_shutdown & SEND_SHUTDOWN */
	bit err;          /* sk_err */
	bit redirecting;  /* with STICKY: that the last verdict was redirect */
	byte given;       /* bytes whose verdict was redirect */
	byte begun, decided; /* verdicts */
	bit judged;       /* the generation that the stack was judged by */
	bit asked;        /* that it is to be judged by */
	byte since;       /* write_seq then */
	/* as a receiver */
	bit linked;       /* in the SOCKHASH */
	bit psock;        /* sk_user_data names the psock */
	byte refs;        /* sk_psock.refcnt */
	bit tx;           /* SK_PSOCK_TX_ENABLED */
	bit accepted;     /* sk_socket is there */
	byte msg_tot_len; /* sk_psock.msg_tot_len */
	byte redirected;  /* of these, the bytes that did not come through the stack */
	byte copied_seq;  /* tcp_sock.copied_seq: bytes of the stack that recv has taken, the FIN too */
	bit shut;         /* sk_shutdown & RCV_SHUTDOWN */
	bit reset;        /* sk_err: ECONNRESET */
	bit closed;
	byte fails;
	bit leaving;      /* its peer is to redirect no more: it is to be taken out of the SOCKHASH */
	byte rcv_nxt;     /* bytes that the stack has brought */
	byte taken;       /* bytes that recv has returned, as the tracepoint counts them, behind it */
	/* what the properties need; no part of the kernel */
	short done;       /* bytes whose send has returned success, as a set */
	short got;        /* bytes that recv has returned */
	short denied;     /* bytes whose send has begun under the new generation, as a set */
	bit eof;          /* recv has returned 0 */
	byte running;     /* threads that still send */
};
End e[2];
short before[2 * MSGS]; /* bytes whose send had returned when this message's send began */
bit off;                /* the accelerator's switch, which the program reads: stack only */
bit denied;             /* a new policy, by which no packet passes */
bit generation;         /* the program knows that there is a new one */

chan net[2] = [SNDBUF + 2] of { byte };        /* sk_write_queue, the wire, sk_backlog: in order, of any delay */
chan receive_queue[2] = [RCVBUF + 1] of { byte };
chan ingress_skb[2] = [RCVBUF + 1] of { byte };
chan ingress_msg[2] = [ROOM + RCVBUF + LEN + 1] of { byte, bit }; /* the bit: it came through the stack (msg->sk) */

#define lock(x) atomic { !e[x].locked -> e[x].locked = 1 }
#define unlock(x) e[x].locked = 0
#define HAS(set, b) (((set) >> (b)) & 1)
#define HELD(x) (e[x].msg_tot_len + len(receive_queue[x]) + len(ingress_skb[x])) /* sk_rmem_alloc */

/* sk_psock_queue_msg(): under psock->ingress_lock. What comes after sk_psock_stop() is freed without a word. */
inline queue_msg(x, value, self) {
	if
	:: !e[x].tx
	:: else ->
		ingress_msg[x] ! value, self;
		if
		:: value < FIN ->
			e[x].msg_tot_len++;
			if
			:: self
			:: !self -> e[x].redirected++
			fi
		:: else
		fi;
		assert(e[x].redirected <= ROOM);
		assert(e[x].msg_tot_len <= ROOM + RCVBUF)
	fi
}

/* sk_psock_put(), sk_psock_drop(), sk_psock_destroy(): the last reference takes what is queued along. */
inline psock_put(x) {
	e[x].refs--;
	if
	:: e[x].refs > 0
	:: else ->
		e[x].psock = 0;
		e[x].tx = 0;
		do
		:: nempty(ingress_msg[x]) -> ingress_msg[x] ? _, _
		:: nempty(ingress_skb[x]) -> ingress_skb[x] ? _
		:: empty(ingress_msg[x]) && empty(ingress_skb[x]) -> break
		od;
		e[x].msg_tot_len = 0;
		e[x].redirected = 0
	fi
}

#ifdef REMOVES
#define WATCHED(x) e[x].linked /* sock_map_del_link(): sk_psock_stop_verdict() */
#else
#define WATCHED(x) 1
#endif

/* sk_psock_verdict_data_ready(), tcp_read_skb(), sk_psock_verdict_apply(SK_PASS): with the no-op verdict program, all
 * of the receive queue goes over to the psock, directly or, when memory lacks or others wait already, by the work
 * queue. The socket is locked (by softirq or by recv). Before accept() nothing moves: sk->sk_socket is NULL. */
inline data_ready(x, value) {
#ifndef NOVERDICT
	do
	:: e[x].psock && WATCHED(x) && e[x].accepted && nempty(receive_queue[x]) ->
		receive_queue[x] ? value;
		if
		:: !e[x].tx
		:: e[x].tx && empty(ingress_skb[x]) -> queue_msg(x, value, 1)
		:: e[x].tx && empty(ingress_skb[x]) && e[x].fails > 0 ->
			e[x].fails--;
			ingress_skb[x] ! value
		:: e[x].tx && nempty(ingress_skb[x]) -> ingress_skb[x] ! value
		fi
	:: !e[x].psock || !WATCHED(x) || !e[x].accepted || empty(receive_queue[x]) -> break
	od
#else
	skip
#endif
}

/* The reader's application has byte number `value` of sender 1 - x. */
inline take(x, value) {
	assert(value < MSGS * LEN);
	assert(!HAS(e[x].got, value));                                     /* none twice */
	assert(!HAS(e[1 - (x)].denied, value));                            /* none that the policy denies */
	assert(value % LEN == 0 || HAS(e[x].got, value - 1));              /* a message's bytes in order */
	assert((e[x].got & before[(1 - (x)) * MSGS + value / LEN]) == before[(1 - (x)) * MSGS + value / LEN]);
	e[x].got = e[x].got | (1 << value)
}

#ifdef REMOVES
#ifdef M_UNFLAGGED
#define STAYS 1
#else
#define STAYS (!e[1 - s].leaving)
#endif
#ifdef M_UNSETTLED
#define DECIDES(r) 0
#else
#define DECIDES(r) (e[1 - (r)].begun != e[1 - (r)].decided)
#endif
#ifdef M_UNCOUNTED
#define MAY_GO(r) (empty(ingress_msg[r]) && empty(ingress_skb[r]) && empty(receive_queue[r]))
#else
#define MAY_GO(r) (e[r].taken == e[r].rcv_nxt + e[1 - (r)].given)
#endif
#define REMOVED 1
#else
#define REMOVED 0
#endif

/* What the sk_msg program decides, from what it has read. `peer` is r. */
#ifdef M_NOBUDGET
#define WITHIN 1
#else
#define WITHIN (queued <= BUDGET)
#endif
#if defined(M_ALWAYS)
#define TAKEN 1
#elif defined(M_ACKED)
#define TAKEN empty(net[s])              /* snd_una == write_seq */
#elif defined(M_STICKY)
#define TAKEN (e[s].redirecting || e[s].write_seq == taken)
#else
#define TAKEN (e[s].write_seq == taken)
#endif
#ifdef M_STICKY
#define REMEMBERED redirect
#else
#define REMEMBERED 0
#endif
#ifdef M_NODOWN
#define OPEN 1
#else
#define OPEN (!e[s].down)
#endif

/* Whether the stack has been given bytes since the program knew of the policy: if they are read, it lets them pass.
 * Without the rule that it was given any, one send that it takes nothing of would do. */
#ifdef M_ONCE
#define GIVEN 1
#else
#define GIVEN (e[s].write_seq != e[s].since)
#endif
#ifdef M_UNJUDGED
#define JUDGED 1
#else
#define JUDGED (e[s].judged == generation)
#endif
inline look_at_policy(s) {
	if
	:: redirect && !JUDGED ->
		if
		:: e[s].asked == generation && GIVEN -> e[s].judged = generation
		:: else ->
			e[s].asked = generation;
			e[s].since = e[s].write_seq;
			redirect = 0
		fi
	:: else
	fi
}

/* tcp_shutdown(), tcp_close(): tcp_send_fin(), through the stack always. */
inline send_fin(s) {
	atomic {
		net[s] ! FIN;
		e[s].write_seq++;
		e[s].down = 1
	}
}

proctype Sender(bit s; byte t) {
	byte m = t, i, queued, taken;
	bit late, redirect, stays;
	do
	:: m < MSGS ->
		atomic {
			late = e[s].down;
			before[s * MSGS + m] = e[s].done;
			if
			:: generation ->
				do
				:: i < LEN -> e[s].denied = e[s].denied | (1 << (m * LEN + i)); i++
				:: else -> break
				od;
				i = 0
			:: else
			fi
		}
#ifdef LATE
		if
		:: m == MSGS - 1 -> lock(s); send_fin(s); unlock(s); late = 1
		:: else
		fi;
#endif
again:
		lock(s);                                    /* tcp_bpf_sendmsg() */
		if
		:: e[s].err -> unlock(s); break
		:: else
		fi;
		/* tcp_bpf_send_verdict(), sk_psock_msg_verdict(): our program, under the sender's lock only. */
#ifdef REMOVES
		e[s].begun++;
		stays = STAYS;
#endif
		queued = e[1 - s].msg_tot_len;
		taken = e[1 - s].copied_seq;
		atomic {
			redirect = !off && (stays || !REMOVED) && e[1 - s].linked && OPEN && TAKEN && WITHIN;
			stays = 0;
			look_at_policy(s);
			e[s].redirecting = REMEMBERED;
#ifdef W_BACK
			assert(!redirect || e[s].write_seq == 0);
#endif
#ifdef W_BUDGET
			assert(queued <= BUDGET);
#endif
			queued = 0;
			taken = 0
		}
#ifdef REMOVES
		e[s].given = e[s].given + (redirect -> LEN : 0);
		e[s].decided++;
#endif
		if
		:: redirect ->
#ifndef M_HOLD
			unlock(s);                              /* tcp_bpf_send_verdict(): release_sock(sk) */
#endif
			if                                      /* tcp_bpf_sendmsg_redir(): sk_psock_get() */
			:: atomic { e[1 - s].psock -> e[1 - s].refs++ }
			:: atomic {
				!e[1 - s].psock ->                  /* -EPIPE */
				assert(e[1 - s].closed || e[s].err);
				break
			}
			fi;
			lock(1 - s);                            /* bpf_tcp_ingress() */
			atomic {
				i = 0;
				do
				:: i < LEN -> queue_msg(1 - s, m * LEN + i, 0); i++
				:: else -> break
				od;
				i = 0;
				unlock(1 - s)
			}
			atomic { psock_put(1 - s) }
#ifdef M_HOLD
			unlock(s)
#endif
		:: else ->                                  /* tcp_bpf_push(), tcp_sendmsg_locked() */
			i = 0;
			do
			:: i == LEN -> unlock(s); break
			:: i < LEN && (e[s].err || e[s].down) -> unlock(s); goto failed
#ifdef DENIES
			:: i == 0 && generation -> unlock(s); goto again /* -EAGAIN: of this send it takes nothing */
#endif
			:: i < LEN && !e[s].err && !e[s].down && len(net[s]) < SNDBUF ->
				atomic { net[s] ! m * LEN + i; e[s].write_seq++; i++ }
			:: i < LEN && !e[s].err && !e[s].down && len(net[s]) >= SNDBUF ->
				unlock(s);                          /* sk_stream_wait_memory() */
				atomic { !e[s].locked && (len(net[s]) < SNDBUF || e[s].err || e[s].down) -> e[s].locked = 1 }
			od
		fi;
		atomic {                                    /* send() returns */
			assert(!late);
			i = 0;
			do
			:: i < LEN ->
				e[s].done = e[s].done | (1 << (m * LEN + i));
				assert(!e[1 - s].eof || e[1 - s].closed || HAS(e[1 - s].got, m * LEN + i));
				i++
			:: else -> break
			od;
			i = 0;
			redirect = 0;
			m = m + THREADS
		}
	:: else -> break
	od;
failed:
	atomic {
		assert(m >= MSGS || e[s].err || e[s].down || e[1 - s].closed); /* a send fails for these reasons only */
		e[s].running--
	}
}

proctype Closer(bit s) {
#ifndef RACE
	e[s].running == 0;
#endif
	lock(s);
	if
	:: e[s].down || e[s].err
	:: else -> send_fin(s)
	fi;
	unlock(s)
}

/* close() with SO_LINGER 0: tcp_disconnect(), tcp_send_active_reset(). Of what is on its way any part may be lost. */
proctype Aborter(bit s) {
	lock(s);
	atomic {
		e[s].err = 1;
		net[s] ! RST;
		unlock(s)
	}
}

/* The receiver's side of the stack. Enrolment is at PASSIVE_ESTABLISHED (or was, at ACTIVE_ESTABLISHED), so before any
 * data arrives; the sender may have sent already. While a user holds the lock, segments wait in sk_backlog. */
proctype Softirq(bit r) {
	byte value;
	atomic {
		e[r].psock = 1;
		e[r].refs = 1;
		e[r].tx = 1;
		e[r].linked = 1
	}
end:
	do
	:: atomic {                                     /* the connection is gone: from here on, all is lost */
		e[1 - r].err && nempty(net[1 - r]) && !net[1 - r] ? [RST] ->
		do
		:: nempty(net[1 - r]) && !net[1 - r] ? [RST] -> net[1 - r] ? value
		:: empty(net[1 - r]) || net[1 - r] ? [RST] -> break
		od;
		value = 0
	}
	:: atomic {                                     /* tcp_write_err() at both ends: no packet passes any more */
		denied && nempty(net[1 - r]) && !e[r].locked && !e[1 - r].locked ->
		do
		:: nempty(net[1 - r]) -> net[1 - r] ? value
		:: empty(net[1 - r]) -> break
		od;
		e[1 - r].err = 1;
		e[r].reset = 1;
		e[r].shut = 1;
		value = 0
	}
	:: atomic {                                     /* tcp_rcv_state_process(): the socket is gone */
		nempty(net[1 - r]) && e[r].closed && !e[r].locked ->
		net[1 - r] ? value;
		if
		:: value < FIN -> e[1 - r].err = 1
		:: else
		fi;
		value = 0
	}
	:: atomic {                                     /* tcp_reset() */
		!e[r].closed && !e[r].locked && !denied && net[1 - r] ? [RST] ->
		net[1 - r] ? RST;
		e[r].reset = 1;
		e[r].shut = 1
	}
	:: atomic {                                     /* tcp_data_queue(), tcp_fin(), tcp_data_ready() */
		!e[r].closed && !e[r].locked && !denied && nempty(net[1 - r]) && !net[1 - r] ? [RST] &&
		(HELD(r) < RCVBUF || net[1 - r] ? [FIN]) ->
		net[1 - r] ? value;
		receive_queue[r] ! value;
#ifdef REMOVES
		e[r].rcv_nxt++;
#endif
		if
		:: value == FIN -> e[r].shut = 1
		:: else
		fi;
		data_ready(r, value);
		value = 0
	}
	od
}

#if FAILS > 0
/* sk_psock_backlog(): without the socket's lock. */
proctype Worker(bit r) {
	byte value;
end:
	do
#ifdef M_DEQUEUES
	:: ingress_skb[r] ? value ->
		atomic { queue_msg(r, value, 1) }
#else
	:: ingress_skb[r] ? <value> ->
		atomic { queue_msg(r, value, 1) }
		atomic {
			if
			:: nempty(ingress_skb[r]) -> ingress_skb[r] ? _
			:: empty(ingress_skb[r])                /* purged by sk_psock_destroy() */
			fi
		}
#endif
	od
}
#endif

#ifdef NOVERDICT
#define BY_STACK(r) empty(ingress_msg[r])
#else
#define BY_STACK(r) 0
#endif
#ifdef M_COPIED_ALL
#define COUNTS(self) 1
#else
#define COUNTS(self) self
#endif

/* The receiver's application; a reader that stalls is one whose next step is late. */
proctype Reader(bit r) {
	byte value;
	bit self, stack;
	e[r].accepted = 1;
	do
#ifdef NOFIN
	:: e[r].got == (1 << (MSGS * LEN)) - 1 -> break
	:: e[r].got != (1 << (MSGS * LEN)) - 1 ->
#else
	:: true ->
#endif
#ifdef CLOSES
		if
		:: skip
		:: lock(r);                                 /* sock_map_close() */
			e[r].linked = 0;
			e[r].tx = 0;                            /* sk_psock_stop() */
			atomic {
				e[r].closed = 1;
				if
				:: e[r].psock -> psock_put(r)
				:: else
				fi;
				unlock(r)
			}
			break
		fi;
#endif
		/* tcp_bpf_recvmsg() looks before it locks; with a verdict program, tcp_bpf_recvmsg_parser(). */
		atomic {
			nempty(ingress_msg[r]) || nempty(receive_queue[r]) || e[r].shut;
			stack = !e[r].psock || (BY_STACK(r) && nempty(receive_queue[r]))
		}
		lock(r);
		atomic {
			stack = stack || !e[r].psock || BY_STACK(r);
			if
			:: !stack -> e[r].refs++; data_ready(r, value)
			:: else
			fi
		}
		atomic {
			self = 1;
			if
			:: stack && nempty(receive_queue[r]) -> receive_queue[r] ? value
			:: !stack && nempty(ingress_msg[r]) ->
				ingress_msg[r] ? value, self;
				if
				:: value < FIN ->
					e[r].msg_tot_len--;
					if
					:: self
					:: !self -> e[r].redirected--
					fi
				:: else
				fi
			:: (stack && empty(receive_queue[r])) || (!stack && empty(ingress_msg[r])) ->
				/* an error, the end, or -EAGAIN */
				self = 0;
				value = (e[r].reset -> RST : (e[r].shut -> FIN : RST + 1))
			fi;
			if
			:: value < FIN -> take(r, value)
			:: else
			fi
		}
		atomic {
			e[r].copied_seq = e[r].copied_seq + (value <= FIN && COUNTS(self) -> 1 : 0);
			if
			:: !stack -> psock_put(r)
			:: else
			fi;
			unlock(r);
			if
			:: value == FIN ->
				e[r].eof = 1;
				assert((e[r].got & e[1 - r].done) == e[1 - r].done); /* none lost; the end is after the last */
				break
			:: value == RST -> break
			:: else
			fi;
#ifndef REMOVES
			value = 0;
#endif
			self = 0;
			stack = 0
		}
#ifdef REMOVES
		atomic {                                    /* sock_recv_length, and recv() returns */
			e[r].taken = e[r].taken + (value < FIN -> 1 : 0);
			value = 0
		}
#endif
	od
}

/* Policy changes, and the accelerator is stopped or dies: stack only, from any moment; and it may come back. */
proctype Switch() {
	byte n = 0;
	do
	:: n < 2 * TOGGLES -> atomic { off = !off; n++ }
	:: n == 2 * TOGGLES -> break
	:: break
	od
}

#ifdef DENIES
/* A policy that denies the connection: packets are judged by it first, then the program is told. */
proctype Policy() {
	denied = 1;
	generation = 1
}
#endif

#ifdef M_REMOVE_EMPTY
#define M_REMOVE
#define UNREAD_IS_FINE(r) (empty(ingress_msg[r]) && empty(ingress_skb[r]))
#else
#define UNREAD_IS_FINE(r) 1
#endif

#ifdef M_REMOVE
/* sock_hash_delete_elem(), sock_hash_free(): also what happens when the map goes. */
proctype Remover(bit r) {
	atomic { e[r].linked && UNREAD_IS_FINE(r) -> e[r].linked = 0 }
	atomic { psock_put(r) }
}
#endif

#ifdef REMOVES
/* leaves_map(), in softirq, at an acknowledgement; so `leaving` was set by a send of this end long before. */
proctype Leaver(bit r) {
	e[r].leaving = 1;
end:
	atomic {
		e[r].linked && !e[r].locked && !DECIDES(r) && MAY_GO(r) -> e[r].locked = 1
	}
	atomic {
		e[r].linked = 0;
		unlock(r);
		psock_put(r);
#ifdef W_REMOVED
		assert(e[1 - (r)].given == 0);
#endif
	}
}
#endif

proctype SideOf(bit s) {
	byte t = 0;
	atomic {
		e[s].running = THREADS;
		e[1 - s].fails = FAILS;
#ifndef PREACCEPT
		e[1 - s].accepted = 1;
#endif
		do
		:: t < THREADS -> run Sender(s, t); t++
		:: else -> break
		od;
#ifndef NOFIN
		run Closer(s);
#endif
#ifdef ABORTS
		run Aborter(s);
#endif
		run Softirq(1 - s);
#if FAILS > 0
		run Worker(1 - s);
#endif
#ifdef M_REMOVE
		run Remover(1 - s);
#endif
#ifdef REMOVES
		run Leaver(1 - s);
#endif
		run Reader(1 - s)
	}
}

init {
	atomic {
		run SideOf(0);
#if DIRS > 1
		run SideOf(1);
#endif
#ifdef DENIES
		run Policy();
#endif
		run Switch()
	}
}
