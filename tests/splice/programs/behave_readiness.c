/* FIONREAD, poll, select, epoll, SO_RCVLOWAT, signals: how an application learns that there is
 * something to do. */
#include "behave.h"

#include <signal.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/select.h>

static void fionread_small(const struct pair *p)
{
	NEED_IS(pending(p->to), 0, "FIONREAD before data");
	put(p->from, 0, 10);
	await_pending(p->to, 10);
	get(p->to, 0, 4);
	NEED_IS(pending(p->to), 6, "FIONREAD after a part");
	put(p->from, 10, 5);
	await_pending(p->to, 11);
	get(p->to, 4, 11);
	NEED_IS(pending(p->to), 0, "FIONREAD after all");
}

static void fionread_large(const struct pair *p)
{
	put(p->from, 0, 50000);
	await_pending(p->to, 50000);
	get(p->to, 0, 12345);
	NEED_IS(pending(p->to), 50000 - 12345, "FIONREAD after a part");
	get(p->to, 12345, 50000 - 12345);
	NEED_IS(pending(p->to), 0, "FIONREAD after all");
}

static void fionread_end(const struct pair *p)
{
	put(p->from, 0, 10);
	shutdown(p->from, SHUT_WR);
	await_pending(p->to, 10);
	NEED(events_of(p->to, POLLRDHUP, soon_ms) & POLLRDHUP, "no POLLRDHUP");
	NEED_IS(pending(p->to), 10, "FIONREAD with the end behind it");
	get(p->to, 0, 10);
	NEED_IS(pending(p->to), 0, "FIONREAD at the end");
	get_end(p->to);
}

static void fionread_unaccepted(const struct pair *unused)
{
	int client = new_client(), server;

	(void)unused;
	put(client, 0, 10);
	put(client, 10, 30000);
	sleep_ms(QUIET_MS);
	server = accepted();
	await_pending(server, 30010);
	get(server, 0, 5);
	put(client, 30010, 100);
	await_pending(server, 30105);
	get(server, 5, 30105);
	put(server, 0, 100);
	await_pending(client, 100);
	get(client, 0, 100);
}

/* All that was sent is acknowledged as soon as it is read. */
static void outq(const struct pair *p)
{
	int64_t end = now_ms() + soon_ms;
	int left = -1;

	put(p->from, 0, 10000);
	get(p->to, 0, 10000);
	while (!ioctl(p->from, TIOCOUTQ, &left) && left && now_ms() < end)
		sleep_ms(1);
	NEED_IS(left, 0, "SIOCOUTQ");
}

/* Reads just as much as FIONREAD says after each event, as .NET does: with 0 it waits for the next
 * event. */
static void read_by_fionread(int fd, uint64_t at, uint64_t bytes)
{
	struct epoll_event event = {.events = EPOLLIN | EPOLLRDHUP | EPOLLET};
	int epoll = epoll_create1(0), there;

	NEED(!epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event), "epoll_ctl");
	while (at < bytes) {
		NEED_IS(epoll_wait(epoll, &event, 1, soon_ms), 1, "events while bytes are due");
		while ((there = pending(fd)) > 0) {
			get(fd, at, there);
			at += there;
		}
	}
	NEED_IS(at, bytes, "bytes in all");
	close(epoll);
}

static void fionread_user(const struct pair *p)
{
	struct feeder small = {.fd = p->from, .bytes = 300000, .chunk = 777};
	struct feeder large = {
	    .fd = p->from, .offset = 300000, .bytes = 4 << 20, .chunk = 200000, .shut = 1};

	feed(&small);
	read_by_fionread(p->to, 0, 300000);
	fed(&small);
	feed(&large);
	read_by_fionread(p->to, 300000, 300000 + (4 << 20));
	fed(&large);
	NEED(events_of(p->to, POLLIN, soon_ms) & POLLIN, "no event of the end");
	NEED_IS(pending(p->to), 0, "FIONREAD at the end");
	get_end(p->to);
}

static void fionread_rounds(const struct pair *p)
{
	int i, size;

	for (i = 0; i < 300; i++) {
		size = 1 + i * 37 % 3000;
		put(p->from, i, size);
		NEED(events_of(p->to, POLLIN, soon_ms) & POLLIN, "round %d: no POLLIN", i);
		await_pending(p->to, size);
		get(p->to, i, size);
		NEED_IS(pending(p->to), 0, "FIONREAD after all");
		put(p->to, i, size);
		await_pending(p->from, size);
		get(p->from, i, size);
	}
}

static void poll_level(const struct pair *p)
{
	NEED_IS(events_of(p->to, POLLIN, QUIET_MS), 0, "events before data");
	put(p->from, 0, 10);
	NEED_IS(events_of(p->to, POLLIN, soon_ms), POLLIN, "events with data");
	get(p->to, 0, 4);
	NEED_IS(events_of(p->to, POLLIN, QUIET_MS), POLLIN, "events after a part");
	get(p->to, 4, 6);
	NEED_IS(events_of(p->to, POLLIN, QUIET_MS), 0, "events after all");
	NEED_IS(events_of(p->to, POLLOUT, 0), POLLOUT, "room to write");
}

static int can_read(int fd, int ms)
{
	struct timeval time = {0, ms * 1000};
	fd_set set;

	FD_ZERO(&set);
	FD_SET(fd, &set);
	return select(fd + 1, &set, 0, 0, &time);
}

static void select_level(const struct pair *p)
{
	NEED_IS(can_read(p->to, QUIET_MS), 0, "select before data");
	put(p->from, 0, 20000);
	NEED_IS(can_read(p->to, 900), 1, "select with data");
	get(p->to, 0, 19999);
	NEED_IS(can_read(p->to, QUIET_MS), 1, "select after a part");
	get(p->to, 19999, 1);
	NEED_IS(can_read(p->to, QUIET_MS), 0, "select after all");
}

static int epoll_for(int fd, uint32_t events)
{
	struct epoll_event event = {.events = events};
	int epoll = epoll_create1(0);

	NEED(!epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event), "epoll_ctl: %s", strerror(errno));
	return epoll;
}

/* The events of the one socket in it, 0 if there is none. */
static long long next_event(int epoll, int ms)
{
	struct epoll_event event = {0};
	int count = epoll_wait(epoll, &event, 1, ms);

	NEED(count >= 0, "epoll_wait: %s", strerror(errno));
	return count ? event.events : 0;
}

static void epoll_level(const struct pair *p)
{
	int epoll = epoll_for(p->to, EPOLLIN);

	NEED_IS(next_event(epoll, QUIET_MS), 0, "events before data");
	put(p->from, 0, 10);
	NEED_IS(next_event(epoll, soon_ms), EPOLLIN, "events with data");
	NEED_IS(next_event(epoll, QUIET_MS), EPOLLIN, "events with data, again");
	get(p->to, 0, 4);
	NEED_IS(next_event(epoll, QUIET_MS), EPOLLIN, "events after a part");
	get(p->to, 4, 6);
	NEED_IS(next_event(epoll, QUIET_MS), 0, "events after all");
}

static void epoll_edge(const struct pair *p)
{
	int i, epoll = epoll_for(p->to, EPOLLIN | EPOLLET);

	NEED_IS(next_event(epoll, QUIET_MS), 0, "events before data");
	for (i = 0; i < 20; i++) {
		put(p->from, i * 10, 10);
		NEED_IS(next_event(epoll, soon_ms), EPOLLIN, "events of an arrival");
		NEED_IS(next_event(epoll, i < 3 ? QUIET_MS : 0), 0, "events without an arrival");
		if (i)
			get(p->to, (i - 1) * 10, 10);
		NEED_IS(next_event(epoll, i < 3 ? QUIET_MS : 0), 0, "events after a part");
	}
	get(p->to, 190, 10);
	NEED_IS(next_event(epoll, QUIET_MS), 0, "events after all");
	put(p->from, 200, 100000);
	NEED_IS(next_event(epoll, soon_ms), EPOLLIN, "events of a large arrival");
	get(p->to, 200, 100000);
}

static void epoll_edge_late(const struct pair *p)
{
	struct epoll_event event = {.events = EPOLLIN | EPOLLET};
	int epoll;

	put(p->from, 0, 10);
	arrive(p->to, 10);
	epoll = epoll_for(p->to, EPOLLIN | EPOLLET);
	NEED_IS(next_event(epoll, soon_ms), EPOLLIN, "events of data that was there before");
	NEED_IS(next_event(epoll, QUIET_MS), 0, "events without an arrival");
	NEED(!epoll_ctl(epoll, EPOLL_CTL_MOD, p->to, &event), "epoll_ctl");
	NEED_IS(next_event(epoll, soon_ms), EPOLLIN, "events when armed again");
	get(p->to, 0, 10);
}

static void epoll_oneshot(const struct pair *p)
{
	struct epoll_event event = {.events = EPOLLIN | EPOLLONESHOT};
	int epoll = epoll_for(p->to, EPOLLIN | EPOLLONESHOT);

	put(p->from, 0, 10);
	NEED_IS(next_event(epoll, soon_ms), EPOLLIN, "events of an arrival");
	put(p->from, 10, 10);
	NEED_IS(next_event(epoll, QUIET_MS), 0, "events when disarmed");
	NEED(!epoll_ctl(epoll, EPOLL_CTL_MOD, p->to, &event), "epoll_ctl");
	NEED_IS(next_event(epoll, soon_ms), EPOLLIN, "events when armed again");
	get(p->to, 0, 20);
}

static void epoll_rdhup(const struct pair *p)
{
	int epoll = epoll_for(p->to, EPOLLIN | EPOLLRDHUP);
	int edge = epoll_for(p->to, EPOLLIN | EPOLLRDHUP | EPOLLET);

	put(p->from, 0, 10);
	NEED_IS(next_event(edge, soon_ms), EPOLLIN, "edge with data");
	shutdown(p->from, SHUT_WR);
	NEED_IS(next_event(edge, soon_ms), EPOLLIN | EPOLLRDHUP, "edge of the end");
	NEED_IS(next_event(epoll, soon_ms), EPOLLIN | EPOLLRDHUP, "events with data and the end");
	get(p->to, 0, 10);
	NEED_IS(next_event(epoll, 0), EPOLLIN | EPOLLRDHUP, "events at the end");
	get_end(p->to);
	shutdown(p->to, SHUT_WR);
	NEED_IS(next_event(epoll, soon_ms), EPOLLIN | EPOLLRDHUP | EPOLLHUP, "events of both ends");
}

static void epoll_out(const struct pair *p)
{
	uint64_t sent = fill_up(p->from, 0);
	int level = epoll_for(p->from, EPOLLOUT), edge = epoll_for(p->from, EPOLLOUT | EPOLLET);

	NEED_IS(next_event(level, QUIET_MS), 0, "EPOLLOUT of a full socket");
	NEED_IS(next_event(edge, QUIET_MS), 0, "EPOLLOUT of a full socket, edge");
	NEED_IS(events_of(p->from, POLLOUT, 0), 0, "POLLOUT of a full socket");
	get(p->to, 0, sent);
	NEED_IS(next_event(edge, soon_ms), EPOLLOUT, "EPOLLOUT when all was read, edge");
	NEED_IS(next_event(level, soon_ms), EPOLLOUT, "EPOLLOUT when all was read");
	put(p->from, sent, 1000);
	get(p->to, sent, 1000);
}

static void *poll_forever(void *argument)
{
	return (void *)(intptr_t)events_of(*(int *)argument, POLLIN, -1);
}

static void poll_wakes(const struct pair *p)
{
	pthread_t thread;
	void *events;
	int i, fd = p->to;

	for (i = 0; i < 5; i++) {
		NEED(!pthread_create(&thread, 0, poll_forever, &fd), "no thread");
		sleep_ms(5);
		put(p->from, i * 10, 10);
		pthread_join(thread, &events);
		NEED_IS((intptr_t)events, POLLIN, "events that woke");
		get(p->to, i * 10, 10);
	}
}

static void set_low_water(int fd, int bytes)
{
	NEED(!setsockopt(fd, SOL_SOCKET, SO_RCVLOWAT, &bytes, sizeof(bytes)), "SO_RCVLOWAT");
}

static void rcvlowat_before(const struct pair *p)
{
	int epoll = epoll_for(p->to, EPOLLIN | EPOLLET);

	set_low_water(p->to, 100);
	put(p->from, 0, 50);
	NEED_IS(events_of(p->to, POLLIN, QUIET_MS), 0, "events below the mark");
	NEED_IS(next_event(epoll, 0), 0, "edge below the mark");
	put(p->from, 50, 50);
	NEED_IS(events_of(p->to, POLLIN, soon_ms), POLLIN, "events at the mark");
	NEED_IS(next_event(epoll, soon_ms), EPOLLIN, "edge at the mark");
	get(p->to, 0, 100);
	put(p->from, 100, 50);
	shutdown(p->from, SHUT_WR);
	NEED_IS(events_of(p->to, POLLIN, soon_ms), POLLIN, "events below the mark, at the end");
	get(p->to, 100, 50);
	get_end(p->to);
}

static void rcvlowat_after(const struct pair *p)
{
	put(p->from, 0, 50);
	NEED_IS(events_of(p->to, POLLIN, soon_ms), POLLIN, "events without a mark");
	set_low_water(p->to, 100);
	NEED_IS(events_of(p->to, POLLIN, QUIET_MS), 0, "events below the mark");
	set_low_water(p->to, 20);
	NEED_IS(events_of(p->to, POLLIN, soon_ms), POLLIN, "events above the lowered mark");
	set_low_water(p->to, 60);
	put(p->from, 50, 50);
	NEED_IS(events_of(p->to, POLLIN, soon_ms), POLLIN, "events above the mark");
	get(p->to, 0, 50);
	NEED_IS(events_of(p->to, POLLIN, QUIET_MS), 0, "events below the mark");
	get(p->to, 50, 50);
}

/* A blocking read waits for as many. (Linux does not wake one that has taken a part before as many
 * are there again.) */
static void rcvlowat_blocks(const struct pair *p)
{
	struct feeder later = {
	    .fd = p->from, .offset = 50, .bytes = 100, .chunk = 100, .pause_ms = 15};
	char text[200];

	set_low_water(p->to, 100);
	put(p->from, 0, 50);
	feed(&later);
	NEED_IS(recv(p->to, text, 200, 0), 150, "recv with a mark of 100");
	same(text, 0, 150);
	fed(&later);
}

static volatile sig_atomic_t signals;

static void count_signal(int number)
{
	(void)number;
	signals++;
}

static void sigio(const struct pair *p)
{
	int64_t end = now_ms() + soon_ms;

	signal(SIGIO, count_signal);
	NEED(!fcntl(p->to, F_SETOWN, getpid()), "F_SETOWN");
	NEED(!fcntl(p->to, F_SETFL, O_ASYNC), "O_ASYNC");
	put(p->from, 0, 10);
	while (!signals && now_ms() < end)
		sleep_ms(1);
	NEED(signals > 0, "no SIGIO");
	get(p->to, 0, 10);
}

const struct check readiness_checks[] = {{"fionread_small", fionread_small, 0},
					 {"fionread_large", fionread_large, 0},
					 {"fionread_end", fionread_end, 0},
					 {"fionread_unaccepted", fionread_unaccepted, 1},
					 {"fionread_user", fionread_user, 0},
					 {"fionread_rounds", fionread_rounds, 0},
					 {"outq", outq, 0},
					 {"poll_level", poll_level, 0},
					 {"poll_wakes", poll_wakes, 0},
					 {"select_level", select_level, 0},
					 {"epoll_level", epoll_level, 0},
					 {"epoll_edge", epoll_edge, 0},
					 {"epoll_edge_late", epoll_edge_late, 0},
					 {"epoll_oneshot", epoll_oneshot, 0},
					 {"epoll_rdhup", epoll_rdhup, 0},
					 {"epoll_out", epoll_out, 0},
					 {"rcvlowat_before", rcvlowat_before, 0},
					 {"rcvlowat_after", rcvlowat_after, 0},
					 {"rcvlowat_blocks", rcvlowat_blocks, 0},
					 {"sigio", sigio, 0},
					 {0, 0, 0}};
