/* The ways to write, and what a writer sees of a reader that does not read. */
#include "behave.h"

#include <fcntl.h>
#include <linux/errqueue.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/uio.h>

static int file_of(size_t bytes)
{
	int file = memfd_create("content", 0);
	char *text = malloc(bytes);

	content_fill(1, 0, text, bytes);
	NEED_IS(write(file, text, bytes), (long long)bytes, "write to a file");
	lseek(file, 0, SEEK_SET);
	free(text);
	return file;
}

struct copy {
	pthread_t thread;
	int file, fd;
	size_t bytes;
};

static void *sending_file(void *argument)
{
	struct copy *c = argument;
	size_t done = 0;
	ssize_t got;

	for (; done < c->bytes; done += got) {
		do
			got = sendfile(c->fd, c->file, 0, c->bytes - done);
		while (got < 0 && waits_for(c->fd, POLLOUT));
		NEED(got > 0, "sendfile gives %zd (errno: %s)", got, strerror(errno));
	}
	return 0;
}

static void *splicing_file(void *argument)
{
	struct copy *c = argument;
	int pipes[2];
	size_t done = 0;
	ssize_t got, put;

	NEED(!pipe(pipes), "pipe");
	while (done < c->bytes) {
		got = splice(c->file, 0, pipes[1], 0, 65536, 0);
		NEED(got > 0, "splice from the file gives %zd", got);
		for (; got; got -= put, done += put) {
			do
				put = splice(pipes[0], 0, c->fd, 0, got,
					     SPLICE_F_MOVE | SPLICE_F_MORE * (done & 1));
			while (put < 0 && waits_for(c->fd, POLLOUT));
			NEED(put > 0, "splice to the socket gives %zd (errno: %s)", put,
			     strerror(errno));
		}
	}
	return 0;
}

static void from_file(const struct pair *p, void *(*way)(void *))
{
	struct copy copy = {.fd = p->from, .bytes = 3000001};

	copy.file = file_of(copy.bytes);
	NEED(!pthread_create(&copy.thread, 0, way, &copy), "no thread");
	get(p->to, 0, copy.bytes);
	pthread_join(copy.thread, 0);
	put(p->from, 0, 10);
	get(p->to, 0, 10);
}

static void sendfile_to(const struct pair *p)
{
	from_file(p, sending_file);
}

static void splice_to(const struct pair *p)
{
	from_file(p, splicing_file);
}

/* Small parts by sendfile and by send keep their order. */
static void sendfile_mixed(const struct pair *p)
{
	int file = file_of(100000);
	off_t at = 0;

	while (at < 100000) {
		NEED_IS(sendfile(p->from, file, &at, 500), 500, "sendfile");
		put(p->from, at, 500);
		at += 500;
		get(p->to, at - 1000, 1000);
	}
}

/* The number of sends that a completion in the error queue covers. */
static int completions(int fd)
{
	char control[256];
	struct msghdr message = {.msg_control = control, .msg_controllen = sizeof(control)};
	struct sock_extended_err *error;
	struct cmsghdr *header;

	if (recvmsg(fd, &message, MSG_ERRQUEUE | MSG_DONTWAIT) < 0)
		return 0;
	header = CMSG_FIRSTHDR(&message);
	NEED(header, "an empty message in the error queue");
	error = (void *)CMSG_DATA(header);
	NEED_IS(error->ee_origin, SO_EE_ORIGIN_ZEROCOPY, "ee_origin");
	NEED_IS(error->ee_errno, 0, "ee_errno");
	return error->ee_data - error->ee_info + 1;
}

static void zerocopy(const struct pair *p)
{
	static char text[100000];
	int64_t end = now_ms() + soon_ms;
	int i, done = 0, one = 1;

	NEED(!setsockopt(p->from, SOL_SOCKET, SO_ZEROCOPY, &one, sizeof(one)), "SO_ZEROCOPY");
	content_fill(1, 0, text, sizeof(text));
	for (i = 0; i < 10; i++) {
		NEED_IS(send(p->from, text + i * 10000, 10000, MSG_ZEROCOPY), 10000, "send");
		get(p->to, i * 10000, 10000);
	}
	while (done < 10 && now_ms() < end) {
		events_of(p->from, 0, 10);
		done += completions(p->from);
	}
	NEED_IS(done, 10, "sends that were completed");
}

/* What is in the buffer when the completion comes may change: the reader must not see that. */
static void zerocopy_unread(const struct pair *p)
{
	static char text[10000];
	int64_t end = now_ms() + soon_ms / 8;
	int done = 0, one = 1;

	NEED(!setsockopt(p->from, SOL_SOCKET, SO_ZEROCOPY, &one, sizeof(one)), "SO_ZEROCOPY");
	content_fill(1, 0, text, sizeof(text));
	NEED_IS(send(p->from, text, 10000, MSG_ZEROCOPY), 10000, "send");
	while (!done && now_ms() < end) {
		events_of(p->from, 0, 10);
		done = completions(p->from);
	}
	note("completed before it is read: %s", done ? "yes" : "no");
	if (done)
		memset(text, 0, sizeof(text));
	get(p->to, 0, 10000);
}

static void large_send(const struct pair *p)
{
	struct feeder data = {.fd = p->from, .bytes = 64 << 20, .chunk = 64 << 20, .shut = 1};
	int i;

	feed(&data);
	for (i = 0; i < 64; i++) {
		if (i % 8 == 0)
			sleep_ms(5);
		get(p->to, (uint64_t)i << 20, 1 << 20);
	}
	get_end(p->to);
	fed(&data);
}

static void blocked_writer_resumes(const struct pair *p)
{
	struct feeder data = {.fd = p->from, .bytes = 24 << 20, .chunk = 1000000};
	int before = -1;

	feed(&data);
	while (pending(p->to) != before) {
		before = pending(p->to);
		sleep_ms(QUIET_MS);
	}
	get(p->to, 0, 8 << 20);
	sleep_ms(QUIET_MS);
	get(p->to, 8 << 20, 16 << 20);
	fed(&data);
}

/* The writer stops, some is read, it goes on, it stops again: several times. */
static void stops_and_goes(const struct pair *p)
{
	uint64_t sent = 0, read = 0, half;
	int i;

	for (i = 0; i < 4; i++) {
		sent = fill_up(p->from, sent);
		half = (sent - read) / 2;
		get(p->to, read, half);
		read += half;
	}
	note("%llu bytes sent before the last stop, %llu unread", (unsigned long long)sent,
	     (unsigned long long)(sent - read));
	get(p->to, read, sent - read);
	put(p->from, sent, 100);
	get(p->to, sent, 100);
}

/* A connection whose writer stops because of an unaccepted reader. */
static void full_unaccepted(const struct pair *unused)
{
	int client = new_client(), server;
	uint64_t sent = fill_up(client, 0);

	(void)unused;
	server = accepted();
	get(server, 0, sent);
	put(client, sent, 10000);
	get(server, sent, 10000);
}

static void sndtimeo(const struct pair *p)
{
	struct timeval time = {0, 50000};
	uint64_t sent = 0;
	size_t size = 16 << 20;
	char *text = malloc(size);
	ssize_t got;

	NEED(!setsockopt(p->from, SOL_SOCKET, SO_SNDTIMEO, &time, sizeof(time)), "SO_SNDTIMEO");
	do {
		content_fill(1, sent, text, size);
		got = send(p->from, text, size, 0);
		sent += got > 0 ? got : 0;
	} while (got > 0);
	NEED_IS(errno, EAGAIN, "errno when the time is over");
	get(p->to, 0, sent);
	put(p->from, sent, 100);
	get(p->to, sent, 100);
	free(text);
}

static void nodelay(const struct pair *p)
{
	int one = 1, i;

	NEED(!setsockopt(p->from, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one)), "TCP_NODELAY");
	for (i = 0; i < 100; i++)
		put(p->from, i * 10, 10);
	get(p->to, 0, 1000);
	put(p->from, 0, 10);
	arrive(p->to, 10);
}

static void cork(const struct pair *p)
{
	int on = 1, off = 0;

	NEED(!setsockopt(p->from, IPPROTO_TCP, TCP_CORK, &on, sizeof(on)), "TCP_CORK");
	put(p->from, 0, 10);
	put(p->from, 10, 10);
	note("corked bytes come %s", events_of(p->to, POLLIN, QUIET_MS) ? "at once" : "later");
	NEED(!setsockopt(p->from, IPPROTO_TCP, TCP_CORK, &off, sizeof(off)), "TCP_CORK");
	arrive(p->to, 20);
	get(p->to, 0, 20);
	put(p->from, 20, 1000);
	get(p->to, 20, 1000);
}

static void more(const struct pair *p)
{
	char text[30];

	content_fill(1, 0, text, sizeof(text));
	NEED_IS(send(p->from, text, 10, MSG_MORE), 10, "send");
	note("bytes sent with MSG_MORE come %s",
	     events_of(p->to, POLLIN, QUIET_MS) ? "at once" : "later");
	NEED_IS(send(p->from, text + 10, 10, MSG_MORE), 10, "send");
	NEED_IS(send(p->from, text + 20, 10, 0), 10, "send");
	arrive(p->to, 30);
	get(p->to, 0, 30);
	/* What nothing follows comes all the same. */
	NEED_IS(send(p->from, text, 10, MSG_MORE), 10, "send");
	get(p->to, 0, 10);
}

static void quickack(const struct pair *p)
{
	int one = 1, i;

	for (i = 0; i < 20; i++) {
		NEED(!setsockopt(p->to, IPPROTO_TCP, TCP_QUICKACK, &one, sizeof(one)),
		     "TCP_QUICKACK");
		put(p->from, i * 100, 100);
		get(p->to, i * 100, 100);
	}
}

static void writev_parts(const struct pair *p)
{
	char text[5000];
	struct iovec parts[] = {{text, 1}, {text + 1, 0}, {text + 1, 999}, {text + 1000, 4000}};

	content_fill(1, 0, text, sizeof(text));
	NEED_IS(writev(p->from, parts, 4), 5000, "writev");
	get(p->to, 0, 5000);
}

static void small_buffers(const struct pair *p)
{
	struct feeder data = {.fd = p->from, .bytes = 1 << 20};
	int size = 32768;

	NEED(!setsockopt(p->to, SOL_SOCKET, SO_RCVBUF, &size, sizeof(size)), "SO_RCVBUF");
	NEED(!setsockopt(p->from, SOL_SOCKET, SO_SNDBUF, &size, sizeof(size)), "SO_SNDBUF");
	feed(&data);
	get(p->to, 0, 1 << 20);
	fed(&data);
}

const struct check write_checks[] = {{"sendfile_to", sendfile_to, 0},
				     {"sendfile_mixed", sendfile_mixed, 0},
				     {"splice_to", splice_to, 0},
				     {"zerocopy", zerocopy, 0},
				     {"zerocopy_unread", zerocopy_unread, 0},
				     {"large_send", large_send, 0},
				     {"blocked_writer_resumes", blocked_writer_resumes, 0},
				     {"stops_and_goes", stops_and_goes, 0},
				     {"full_unaccepted", full_unaccepted, 1},
				     {"sndtimeo", sndtimeo, 0},
				     {"nodelay", nodelay, 0},
				     {"cork", cork, 0},
				     {"more", more, 0},
				     {"quickack", quickack, 0},
				     {"writev_parts", writev_parts, 0},
				     {"small_buffers", small_buffers, 0},
				     {0, 0, 0}};
