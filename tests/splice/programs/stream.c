/* What one end of a stream does: reads, checks, writes, pauses, and ends as planned. */
#include "stream.h"
#include "content.h"
#include "tools.h"

#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/uio.h>

#define MOST_READ (64 * 1024)
#define TURNS	  16

static const int greeting[2] = {HELLO, 1};

static int takes_part(const struct end *e, enum kind kind)
{
	return e->plan.kind == kind && e->plan.actor == e->side;
}

static int wants_read(const struct end *e)
{
	if (e->over || e->eof || e->connecting)
		return 0;
	if (!e->named)
		return 1;
	if (e->plan.kind == CROSS && e->met == greeting[!e->side])
		return e->received < e->plan.bytes[!e->side];
	return !takes_part(e, UNREAD);
}

static int wants_write(const struct end *e)
{
	if (e->over || e->reset || !e->named)
		return 0;
	if (e->connecting || e->greeted < greeting[e->side])
		return 1;
	if (e->side && e->plan.kind == HALF && !e->eof)
		return 0;
	return !e->sent_all && (e->side || e->worker->all_started);
}

static void pause_some(struct end *e, int64_t *until, int64_t now)
{
	uint32_t stall = e->plan.stall[e->side];

	if (stall && !(random64(&e->rng) % stall))
		*until = now + 1 + some_size(&e->rng, 60);
}

/* The peer has reset: as planned, or not. */
static void was_reset(struct end *e, const char *during)
{
	int error = errno, victim = e->plan.actor != e->side;

	e->worker->counts.resets++;
	e->reset = e->readable = 1;
	if (!e->named) {
		e->worker->counts.nameless++;
		e->over = 1;
	} else if (e->plan.kind != ORPHAN && !(e->plan.kind == RESET && victim) &&
		   !(e->plan.kind == UNREAD && victim)) {
		fail(e, e->received, "%s: %s", during, strerror(error));
	}
}

static void at_eof(struct end *e)
{
	uint64_t due = e->plan.bytes[!e->side];

	e->eof = 1;
	if (!e->named)
		fail(e, e->met, "end before the hello");
	else if (e->reset)
		e->over = 1;
	else if (e->plan.kind == RESET || e->plan.kind == ORPHAN)
		fail(e, e->received, "end where a reset was due");
	else if (e->received != due)
		fail(e, e->received, "end, but %llu bytes were sent", (unsigned long long)due);
	else if (e->plan.kind == UNREAD)
		e->over = 1;
}

static void read_hello(struct end *e)
{
	uint64_t word[2];

	memcpy(word, e->hello, HELLO);
	if (word[0] != mix(e->worker->options->seed)) {
		fail(e, 0, "this is no hello: %016llx", (unsigned long long)word[0]);
	} else if (word[1] == BYE) {
		e->worker->bye = e->over = 1;
	} else {
		make_plan(e->worker->options, word[1], &e->plan);
		e->named = 1;
		e->rng = mix(e->plan.id * 2 + 1) | 1;
	}
}

static void meet(struct end *e)
{
	char welcome, *to = e->side ? e->hello + e->met : &welcome;
	ssize_t got = recv(e->fd, to, greeting[!e->side] - e->met, 0);

	if (got <= 0) {
		if (!got)
			at_eof(e);
		else if (errno == EAGAIN)
			e->readable = 0;
		else
			was_reset(e, "greeting");
		e->over |= got < 0 && e->reset;
		return;
	}
	e->met += got;
	if (e->met < greeting[!e->side])
		return;
	if (e->side)
		read_hello(e);
	else if (welcome != WELCOME)
		fail(e, 0, "this is no welcome: %d", welcome);
	else
		e->worker->waiting--;
}

static void greet(struct end *e)
{
	const char *from = e->side ? (const char[]){WELCOME} : e->hello + e->greeted;
	ssize_t put = send(e->fd, from, greeting[e->side] - e->greeted, MSG_NOSIGNAL);

	if (put >= 0)
		e->greeted += put;
	else if (errno == EAGAIN)
		e->writable = 0;
	else
		was_reset(e, "greeting");
}

/* Of a few wrong bytes alone nobody can say where they belong: some of what follows helps. */
static size_t read_on(struct end *e, size_t bytes)
{
	ssize_t got = recv(e->fd, e->worker->buffer + bytes, 64, MSG_DONTWAIT);

	return got > 0 ? bytes + got : bytes;
}

static int right(struct end *e, size_t bytes, const char *how)
{
	uint64_t seed = content_seed(e->worker->options->seed, e->plan.id, !e->side);
	uint64_t due = e->plan.bytes[!e->side];
	const char *from = e->worker->buffer;
	ssize_t wrong = content_wrong(seed, e->received, from, bytes);

	if (wrong >= 0 && *how == 'r')
		bytes = read_on(e, bytes);
	if (wrong >= 0)
		fail(e, e->received + wrong, "%s: wrong content, it belongs to offset %lld", how,
		     (long long)content_locate(seed, from + wrong, bytes - wrong));
	else if (e->received + bytes > due)
		fail(e, due, "%s: more bytes than were sent", how);
	return !e->over;
}

/* Peeks or asks how much is there; the read that follows must then get as much. */
static ssize_t look_ahead(struct end *e, size_t *size)
{
	uint64_t roll = random64(&e->rng);
	ssize_t seen = -1;
	int there = -1;

	if (roll % 16 == 0) {
		seen = recv(e->fd, e->worker->buffer, *size, MSG_PEEK);
		e->worker->counts.peeks += seen > 0;
		if (seen > 0)
			right(e, seen, "peek");
		else if (seen < 0 && errno != EAGAIN)
			was_reset(e, "peek");
	} else if (roll % 16 == 1 && !ioctl(e->fd, FIONREAD, &there)) {
		e->worker->counts.inquiries++;
		seen = there > MOST_READ ? MOST_READ : there;
		if (seen > (ssize_t)*size)
			*size = seen;
	}
	return seen;
}

static void read_some(struct end *e)
{
	size_t size = some_size(&e->rng, MOST_READ);
	ssize_t got, seen;

	if (e->met < greeting[!e->side]) {
		meet(e);
		return;
	}
	seen = look_ahead(e, &size);
	if (e->over)
		return;
	got = recv(e->fd, e->worker->buffer, size, 0);
	if (seen > 0 && got < seen)
		fail(e, e->received, "%zd bytes were there, the read of %zu gave %zd", seen, size,
		     got);
	else if (got < 0 && errno == EAGAIN)
		e->readable = 0;
	else if (got < 0)
		was_reset(e, "read");
	else if (!got)
		at_eof(e);
	else if (right(e, got, "read")) {
		e->received += got;
		e->worker->counts.received += got;
		e->moved = now_ms();
		pause_some(e, &e->read_after, e->moved);
	}
	/* The end that follows tells that all is read. */
	if (e->reset && got < 0 && errno != EAGAIN)
		e->over = 1;
}

static ssize_t write_by_turns(struct end *e, char *from, size_t size, int last)
{
	size_t half = random64(&e->rng) % (size + 1);
	struct iovec parts[2] = {{from, half}, {from + half, size - half}};
	struct msghdr message = {.msg_iov = parts, .msg_iovlen = 2};

	switch (random64(&e->rng) % 8) {
	case 0:
		return sendmsg(e->fd, &message, MSG_NOSIGNAL);
	case 1:
		return send(e->fd, from, size, MSG_NOSIGNAL | (last ? 0 : MSG_MORE));
	default:
		return send(e->fd, from, size, MSG_NOSIGNAL);
	}
}

static void write_some(struct end *e)
{
	uint64_t left = e->plan.bytes[e->side] - e->sent;
	size_t size = some_size(&e->rng, e->plan.largest[e->side]);
	ssize_t put;

	if (e->greeted < greeting[e->side]) {
		greet(e);
		return;
	}
	if (size > left)
		size = left;
	content_fill(content_seed(e->worker->options->seed, e->plan.id, e->side), e->sent,
		     e->worker->buffer, size);
	put = write_by_turns(e, e->worker->buffer, size, size == left);
	if (put < 0) {
		if (errno == EAGAIN)
			e->writable = 0;
		else
			was_reset(e, "write");
		return;
	}
	e->moved = now_ms();
	e->sent += put;
	e->worker->counts.sent += put;
	pause_some(e, &e->write_after, e->moved);
}

static void reset_at_close(int fd)
{
	struct linger linger = {1, 0};

	setsockopt(fd, SOL_SOCKET, SO_LINGER, &linger, sizeof(linger));
}

static void when_all_is_sent(struct end *e)
{
	e->sent_all = 1;
	if (e->plan.kind == FULL || e->plan.kind == HALF) {
		if (shutdown(e->fd, SHUT_WR))
			fail(e, e->sent, "shutdown: %s", strerror(errno));
	} else if (takes_part(e, RESET)) {
		reset_at_close(e->fd);
		e->over = 1;
	} else if (takes_part(e, UNREAD)) {
		e->over = 1;
	}
}

static void look_for_the_end(struct end *e)
{
	if (e->over || !e->named || e->connecting)
		return;
	if (!e->sent_all && wants_write(e) && e->greeted == greeting[e->side] &&
	    e->sent == e->plan.bytes[e->side])
		when_all_is_sent(e);
	if (e->over)
		return;
	if (e->plan.kind == CROSS)
		e->over = e->sent_all && e->met == greeting[!e->side] &&
			  e->received == e->plan.bytes[!e->side];
	else if (e->plan.kind == FULL || e->plan.kind == HALF)
		e->over = e->sent_all && e->eof;
}

static void finish(struct end *e)
{
	struct worker *w = e->worker;

	if (e->plan.kind != ORPHAN && !e->side && !e->met)
		w->waiting--;
	if (e->named)
		w->counts.streams[e->plan.kind]++;
	close(e->fd);
	w->ends[e->slot] = w->ends[--w->live];
	w->ends[e->slot]->slot = e->slot;
	free(e);
}

/* Events that the end waits for, given what it wants and when it pauses. */
static void await(struct end *e, int64_t now)
{
	struct epoll_event event = {.data.ptr = e};

	if (e->interest & EPOLLET)
		return;
	if (e->plan.edge[e->side]) {
		event.events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET;
	} else {
		e->readable = e->writable = 0;
		if (wants_read(e) && now >= e->read_after)
			event.events |= EPOLLIN;
		if (wants_write(e) && now >= e->write_after)
			event.events |= EPOLLOUT;
	}
	if (e->interest != event.events &&
	    epoll_ctl(e->worker->epoll, EPOLL_CTL_MOD, e->fd, &event))
		die("epoll_ctl");
	e->interest = event.events;
}

static void connected(struct end *e)
{
	socklen_t size = sizeof(int);
	int error = 0;

	getsockopt(e->fd, SOL_SOCKET, SO_ERROR, &error, &size);
	e->connecting = 0;
	e->moved = now_ms();
	if (!error)
		return;
	if (e->plan.kind == ORPHAN) {
		e->worker->counts.refused++;
		e->over = 1;
	} else {
		fail(e, 0, "connect: %s", strerror(error));
	}
}

/* 0: it pauses nowhere. */
static int64_t end_of_pauses(const struct end *e, int64_t now)
{
	int64_t reads = e->read_after > now ? e->read_after : INT64_MAX;
	int64_t writes = e->write_after > now ? e->write_after : INT64_MAX;
	int64_t first = reads < writes ? reads : writes;

	return first == INT64_MAX ? 0 : first;
}

/* Goes on as far as events, pauses and some fairness allow. */
void step(struct end *e)
{
	int64_t now = now_ms();
	int turns, did = 1;

	if (e->connecting && e->writable)
		connected(e);
	look_for_the_end(e);
	for (turns = 0; !e->over && did && turns < TURNS; turns++) {
		did = 0;
		if (e->readable && wants_read(e) && now >= e->read_after)
			did = 1, read_some(e);
		look_for_the_end(e);
		if (e->writable && !e->connecting && wants_write(e) && now >= e->write_after)
			did = 1, write_some(e);
		look_for_the_end(e);
	}
	if (e->over) {
		finish(e);
		return;
	}
	/* By the clock that was asked above: a pause that has ended since then has kept something
	 * from being done. */
	e->wake = did ? now : end_of_pauses(e, now);
	await(e, now);
}

void happened(struct end *e, uint32_t events)
{
	if (events & (EPOLLERR | EPOLLHUP)) {
		e->read_after = e->write_after = 0;
		e->readable = e->writable = 1;
	}
	if (events & (EPOLLIN | EPOLLRDHUP))
		e->readable = 1;
	if (events & EPOLLOUT)
		e->writable = 1;
	step(e);
}

void add_end(struct worker *w, int fd, const struct plan *plan)
{
	struct end *e = calloc(1, sizeof(*e));
	struct epoll_event event = {.data.ptr = e};
	uint64_t word[2] = {mix(w->options->seed), plan ? plan->id : 0};

	if (!e)
		die("no memory");
	e->worker = w;
	e->fd = fd;
	e->side = !plan;
	e->moved = now_ms();
	if (plan) {
		e->plan = *plan;
		e->named = e->connecting = 1;
		memcpy(e->hello, word, HELLO);
		e->rng = mix(plan->id * 2) | 1;
		w->waiting += plan->kind != ORPHAN;
	}
	if (w->live == w->room) {
		w->room = w->room * 2 + 64;
		w->ends = realloc(w->ends, w->room * sizeof(*w->ends));
	}
	e->slot = w->live++;
	w->ends[e->slot] = e;
	if (w->counts.most < (uint64_t)w->live)
		w->counts.most = w->live;
	if (epoll_ctl(w->epoll, EPOLL_CTL_ADD, fd, &event))
		die("epoll_ctl");
	step(e);
}

void check_hung(struct end *e, int64_t now)
{
	if (now - e->moved < e->worker->options->patience * 1000ll)
		return;
	fail(e, e->received, "hung: sent %llu of %llu, received %llu of %llu",
	     (unsigned long long)e->sent, (unsigned long long)e->plan.bytes[e->side],
	     (unsigned long long)e->received, (unsigned long long)e->plan.bytes[!e->side]);
	reset_at_close(e->fd);
	finish(e);
}
