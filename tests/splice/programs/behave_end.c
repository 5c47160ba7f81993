/* Half-closes, closes, resets: all data first, then the end that TCP promises. */
#include "behave.h"

#include <signal.h>

static void reset(int fd)
{
	struct linger linger = {1, 0};

	NEED(!setsockopt(fd, SOL_SOCKET, SO_LINGER, &linger, sizeof(linger)), "SO_LINGER");
	close(fd);
}

static void get_error(int fd, int error, const char *what)
{
	char byte;

	NEED_IS(recv(fd, &byte, 1, 0), -1, what);
	NEED_IS(errno, error, what);
}

static void shutdown_write(const struct pair *p)
{
	put(p->from, 0, 50000);
	shutdown(p->from, SHUT_WR);
	get(p->to, 0, 50000);
	get_end(p->to);
	get_end(p->to);
	put(p->to, 0, 1000);
	get(p->from, 0, 1000);
	close(p->to);
	get_end(p->from);
}

/* A request to its end, and then the answer. */
static void half_close_answer(const struct pair *p)
{
	struct feeder request = {.fd = p->from, .bytes = 300000, .shut = 1};
	struct feeder answer = {.fd = p->to, .bytes = 8 << 20, .shut = 1};

	feed(&request);
	get(p->to, 0, 300000);
	get_end(p->to);
	feed(&answer);
	get(p->from, 0, 8 << 20);
	get_end(p->from);
	fed(&request);
	fed(&answer);
}

static void shutdown_read(const struct pair *p)
{
	put(p->from, 0, 10);
	arrive(p->to, 10);
	shutdown(p->to, SHUT_RD);
	get(p->to, 0, 10);
	get_end(p->to);
	put(p->to, 0, 10);
	get(p->from, 0, 10);
}

static void shutdown_both(const struct pair *p)
{
	put(p->from, 0, 1000);
	arrive(p->to, 1000);
	shutdown(p->from, SHUT_RDWR);
	get_end(p->from);
	get(p->to, 0, 1000);
	get_end(p->to);
	NEED_IS(send(p->from, "x", 1, MSG_NOSIGNAL), -1, "send after shutdown");
	NEED_IS(errno, EPIPE, "errno of a send after shutdown");
}

static void close_with_data(const struct pair *p)
{
	put(p->from, 0, 50000);
	close(p->from);
	NEED(events_of(p->to, POLLIN, soon_ms) & POLLIN, "no POLLIN");
	get(p->to, 0, 50000);
	get_end(p->to);
}

static void close_full(const struct pair *p)
{
	uint64_t sent = fill_up(p->from, 0);

	close(p->from);
	sleep_ms(QUIET_MS);
	get(p->to, 0, sent);
	get_end(p->to);
}

static void close_unaccepted(const struct pair *unused)
{
	int client = new_client(), server;

	(void)unused;
	put(client, 0, 1000);
	close(client);
	sleep_ms(QUIET_MS);
	server = accepted();
	get(server, 0, 1000);
	get_end(server);
}

static void reset_unaccepted(const struct pair *unused)
{
	int client = new_client(), server;
	char text[100];
	ssize_t got;

	(void)unused;
	put(client, 0, 10);
	reset(client);
	sleep_ms(QUIET_MS);
	server = accepted();
	got = recv(server, text, 100, 0);
	if (got > 0) {
		same(text, 0, got);
		got = recv(server, text, 100, 0);
	}
	NEED(got < 0 && errno == ECONNRESET, "recv gives %zd (errno: %s)", got, strerror(errno));
}

/* Nothing unread: an orderly end, in both directions. */
static void close_read(const struct pair *p)
{
	put(p->from, 0, 10);
	get(p->to, 0, 10);
	close(p->to);
	get_end(p->from);
}

static void close_unread(const struct pair *p)
{
	put(p->from, 0, 10);
	arrive(p->to, 10);
	close(p->to);
	NEED(events_of(p->from, POLLIN, soon_ms) & POLLIN, "no POLLIN");
	get_error(p->from, ECONNRESET, "recv after a close with unread data");
}

static void close_part_read(const struct pair *p)
{
	put(p->from, 0, 10000);
	get(p->to, 0, 5000);
	arrive(p->to, 5000);
	close(p->to);
	NEED(events_of(p->from, POLLIN, soon_ms) & POLLIN, "no POLLIN");
	get_error(p->from, ECONNRESET, "recv after a close with unread data");
}

static void close_unread_both(const struct pair *p)
{
	put(p->from, 0, 10);
	put(p->to, 0, 10);
	arrive(p->to, 10);
	arrive(p->from, 10);
	close(p->to);
	NEED(events_of(p->from, POLLHUP, soon_ms) & POLLHUP, "no POLLHUP");
	get(p->from, 0, 10);
	get_error(p->from, ECONNRESET, "recv after a close with unread data");
}

/* The writer is blocked when its reader closes. */
static void close_on_blocked_writer(const struct pair *p)
{
	uint64_t sent = fill_up(p->from, 0);
	char byte = 0;

	close(p->to);
	NEED(events_of(p->from, POLLOUT, soon_ms) & POLLHUP, "no POLLHUP");
	NEED_IS(send(p->from, &byte, 1, MSG_NOSIGNAL), -1, "send");
	NEED(errno == ECONNRESET || errno == EPIPE, "errno of send: %s", strerror(errno));
	note("%llu bytes were sent", (unsigned long long)sent);
}

static void *blocked_send(void *argument)
{
	size_t size = 64 << 20;
	char *text = calloc(1, size);
	ssize_t got;

	while ((got = send(*(int *)argument, text, size, MSG_NOSIGNAL)) > 0)
		;
	free(text);
	return (void *)(intptr_t)errno;
}

static void reset_wakes_writer(const struct pair *p)
{
	int fd = p->from;
	pthread_t thread;
	void *error;

	NEED(!pthread_create(&thread, 0, blocked_send, &fd), "no thread");
	sleep_ms(QUIET_MS);
	reset(p->to);
	pthread_join(thread, &error);
	NEED((intptr_t)error == ECONNRESET || (intptr_t)error == EPIPE, "errno of send: %s",
	     strerror((intptr_t)error));
}

static void *blocked_recv(void *argument)
{
	char byte;
	ssize_t got = recv(*(int *)argument, &byte, 1, 0);

	return (void *)(intptr_t)(got < 0 ? errno : -1);
}

static void reset_wakes_reader(const struct pair *p)
{
	int fd = p->to;
	pthread_t thread;
	void *error;

	NEED(!pthread_create(&thread, 0, blocked_recv, &fd), "no thread");
	sleep_ms(QUIET_MS);
	reset(p->from);
	pthread_join(thread, &error);
	NEED_IS((intptr_t)error, ECONNRESET, "errno of recv");
}

static void reset_seen(const struct pair *p)
{
	int error = 0, events;
	socklen_t size = sizeof(error);

	reset(p->from);
	events = events_of(p->to, POLLIN | POLLRDHUP, soon_ms);
	NEED_IS(events, POLLIN | POLLERR | POLLHUP | POLLRDHUP, "events of a reset");
	NEED(!getsockopt(p->to, SOL_SOCKET, SO_ERROR, &error, &size), "SO_ERROR");
	NEED_IS(error, ECONNRESET, "SO_ERROR");
	get_end(p->to);
	NEED_IS(send(p->to, "x", 1, MSG_NOSIGNAL), -1, "send after a reset");
	NEED_IS(errno, EPIPE, "errno of a send after a reset");
}

/* Data that arrived before a reset can be read. */
static void reset_behind_data(const struct pair *p)
{
	put(p->from, 0, 10);
	arrive(p->to, 10);
	reset(p->from);
	NEED(events_of(p->to, POLLHUP, soon_ms) & POLLHUP, "no POLLHUP");
	get(p->to, 0, 10);
	get_error(p->to, ECONNRESET, "recv after a reset");
	get_end(p->to);
}

static void linger_data(const struct pair *p)
{
	struct linger linger = {1, 5};
	int64_t begun = now_ms();

	NEED(!setsockopt(p->from, SOL_SOCKET, SO_LINGER, &linger, sizeof(linger)), "SO_LINGER");
	put(p->from, 0, 1000);
	NEED(!close(p->from), "close");
	note("close took %lld ms", (long long)(now_ms() - begun));
	get(p->to, 0, 1000);
	get_end(p->to);
}

struct closing {
	pthread_t thread;
	int fd;
};

static void *closing(void *argument)
{
	close(((struct closing *)argument)->fd);
	return 0;
}

static void linger_full(const struct pair *p)
{
	struct linger linger = {1, 5};
	uint64_t sent = fill_up(p->from, 0);
	struct closing other = {.fd = p->from};

	NEED(!setsockopt(p->from, SOL_SOCKET, SO_LINGER, &linger, sizeof(linger)), "SO_LINGER");
	NEED(!pthread_create(&other.thread, 0, closing, &other), "no thread");
	sleep_ms(QUIET_MS);
	get(p->to, 0, sent);
	get_end(p->to);
	pthread_join(other.thread, 0);
}

static volatile sig_atomic_t broken;

static void count_broken(int number)
{
	(void)number;
	broken++;
}

static void send_after_close(const struct pair *p)
{
	signal(SIGPIPE, count_broken);
	put(p->from, 0, 10);
	get(p->to, 0, 10);
	close(p->to);
	get_end(p->from);
	NEED_IS(send(p->from, "x", 1, 0), 1, "first send after the peer's close");
	NEED(events_of(p->from, POLLHUP, soon_ms) & POLLHUP, "no POLLHUP after the first send");
	NEED_IS(broken, 0, "SIGPIPE of the first send");
	NEED_IS(send(p->from, "x", 1, 0), -1, "second send after the peer's close");
	NEED_IS(errno, EPIPE, "errno of the second send");
	NEED_IS(broken, 1, "SIGPIPE of the second send");
	NEED_IS(send(p->from, "x", 1, MSG_NOSIGNAL), -1, "third send after the peer's close");
	NEED_IS(errno, EPIPE, "errno of the third send");
	NEED_IS(broken, 1, "SIGPIPE with MSG_NOSIGNAL");
}

static void both_close(const struct pair *p)
{
	struct closing other = {.fd = p->from};

	put(p->from, 0, 1000);
	get(p->to, 0, 1000);
	put(p->to, 0, 1000);
	get(p->from, 0, 1000);
	NEED(!pthread_create(&other.thread, 0, closing, &other), "no thread");
	NEED(!close(p->to), "close");
	pthread_join(other.thread, 0);
}

static void tcp_info(const struct pair *p)
{
	struct tcp_info info;
	socklen_t size = sizeof(info);

	put(p->from, 0, 10000);
	get(p->to, 0, 10000);
	NEED(!getsockopt(p->to, IPPROTO_TCP, TCP_INFO, &info, &size), "TCP_INFO");
	NEED_IS(info.tcpi_state, 1 /* ESTABLISHED */, "tcpi_state");
	note("after 10000 bytes the reader's bytes_received is %llu, segs_in %u",
	     (unsigned long long)info.tcpi_bytes_received, info.tcpi_segs_in);
	NEED(!getsockopt(p->from, IPPROTO_TCP, TCP_INFO, &info, &size), "TCP_INFO");
	note("after 10000 bytes the writer's bytes_acked is %llu, segs_out %u",
	     (unsigned long long)info.tcpi_bytes_acked, info.tcpi_segs_out);
}

const struct check end_checks[] = {{"shutdown_write", shutdown_write, 0},
				   {"half_close_answer", half_close_answer, 0},
				   {"shutdown_read", shutdown_read, 0},
				   {"shutdown_both", shutdown_both, 0},
				   {"close_with_data", close_with_data, 0},
				   {"close_full", close_full, 0},
				   {"close_unaccepted", close_unaccepted, 1},
				   {"reset_unaccepted", reset_unaccepted, 1},
				   {"close_read", close_read, 0},
				   {"close_unread", close_unread, 0},
				   {"close_part_read", close_part_read, 0},
				   {"close_unread_both", close_unread_both, 0},
				   {"close_on_blocked_writer", close_on_blocked_writer, 0},
				   {"reset_wakes_writer", reset_wakes_writer, 0},
				   {"reset_wakes_reader", reset_wakes_reader, 0},
				   {"reset_seen", reset_seen, 0},
				   {"reset_behind_data", reset_behind_data, 0},
				   {"linger_data", linger_data, 0},
				   {"linger_full", linger_full, 0},
				   {"send_after_close", send_after_close, 0},
				   {"both_close", both_close, 0},
				   {"tcp_info", tcp_info, 0},
				   {0, 0, 0}};
