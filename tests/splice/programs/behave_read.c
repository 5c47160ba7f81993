/* The ways to read. */
#include "behave.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/uio.h>

static char text[4 << 20];

static void peek_small(const struct pair *p)
{
	put(p->from, 0, 10);
	arrive(p->to, 10);
	NEED_IS(recv(p->to, text, 4, MSG_PEEK), 4, "peek of a part");
	same(text, 0, 4);
	NEED_IS(recv(p->to, text, 100, MSG_PEEK), 10, "peek of all");
	same(text, 0, 10);
	NEED_IS(pending(p->to), 10, "FIONREAD after a peek");
	get(p->to, 0, 3);
	NEED_IS(recv(p->to, text, 100, MSG_PEEK), 7, "peek after a part");
	same(text, 3, 7);
	get(p->to, 3, 7);
	NEED_IS(recv(p->to, text, 1, MSG_PEEK | MSG_DONTWAIT), -1, "peek of nothing");
	NEED_IS(errno, EAGAIN, "errno of a peek of nothing");
}

static void peek_large(const struct pair *p)
{
	put(p->from, 0, 30000);
	put(p->from, 30000, 20000);
	arrive(p->to, 50000);
	NEED_IS(recv(p->to, text, sizeof(text), MSG_PEEK), 50000, "peek of two sends");
	same(text, 0, 50000);
	get(p->to, 0, 100);
	NEED_IS(recv(p->to, text, 40000, MSG_PEEK), 40000, "peek after a part");
	same(text, 100, 40000);
	get(p->to, 100, 49900);
}

static void peek_end(const struct pair *p)
{
	put(p->from, 0, 10);
	shutdown(p->from, SHUT_WR);
	NEED_IS(recv(p->to, text, 10, MSG_PEEK), 10, "peek before the end");
	get(p->to, 0, 10);
	NEED_IS(recv(p->to, text, 10, MSG_PEEK), 0, "peek at the end");
	get_end(p->to);
}

static void peek_offset(const struct pair *p)
{
	int offset = 4;

	if (setsockopt(p->to, SOL_SOCKET, SO_PEEK_OFF, &offset, sizeof(offset))) {
		note("this kernel has no SO_PEEK_OFF for TCP");
		return;
	}
	put(p->from, 0, 20);
	arrive(p->to, 20);
	NEED_IS(recv(p->to, text, 6, MSG_PEEK), 6, "peek at offset 4");
	same(text, 4, 6);
	NEED_IS(recv(p->to, text, 100, MSG_PEEK), 10, "peek at offset 10");
	same(text, 10, 10);
	get(p->to, 0, 20);
}

static void waitall(const struct pair *p)
{
	struct feeder pieces = {.fd = p->from, .bytes = 5000, .chunk = 1000, .pause_ms = 5};
	struct feeder large = {
	    .fd = p->from, .offset = 5000, .bytes = sizeof(text), .chunk = 99999};

	feed(&pieces);
	NEED_IS(recv(p->to, text, 5000, MSG_WAITALL), 5000, "recv of five sends");
	same(text, 0, 5000);
	fed(&pieces);
	feed(&large);
	NEED_IS(recv(p->to, text, sizeof(text), MSG_WAITALL), sizeof(text), "recv of 4 MiB");
	same(text, 5000, sizeof(text));
	fed(&large);
}

static void waitall_pending(const struct pair *p)
{
	struct feeder rest = {
	    .fd = p->from, .offset = 700, .bytes = 300, .chunk = 100, .pause_ms = 5};

	put(p->from, 0, 700);
	arrive(p->to, 700);
	feed(&rest);
	NEED_IS(recv(p->to, text, 1000, MSG_WAITALL), 1000,
		"recv of a part that is there and more");
	same(text, 0, 1000);
	fed(&rest);
}

static void waitall_end(const struct pair *p)
{
	struct feeder pieces = {
	    .fd = p->from, .bytes = 3000, .chunk = 1000, .pause_ms = 5, .shut = 1};

	feed(&pieces);
	NEED_IS(recv(p->to, text, 5000, MSG_WAITALL), 3000, "recv of all before the end");
	same(text, 0, 3000);
	fed(&pieces);
	get_end(p->to);
}

static void dontwait(const struct pair *p)
{
	NEED_IS(recv(p->to, text, 10, MSG_DONTWAIT), -1, "recv of nothing");
	NEED_IS(errno, EAGAIN, "errno of a recv of nothing");
	put(p->from, 0, 10);
	arrive(p->to, 10);
	NEED_IS(recv(p->to, text, 4, MSG_DONTWAIT), 4, "recv of a part");
	NEED_IS(recv(p->to, text + 4, 100, MSG_DONTWAIT), 6, "recv of the rest");
	same(text, 0, 10);
	set_nonblocking(p->to, 1);
	NEED_IS(read(p->to, text, 10), -1, "read of nothing");
	NEED_IS(errno, EAGAIN, "errno of a read of nothing");
}

/* With TCP it throws bytes away. */
static void truncated(const struct pair *p)
{
	put(p->from, 0, 30);
	arrive(p->to, 30);
	memset(text, 'x', 10);
	NEED_IS(recv(p->to, text, 10, MSG_TRUNC), 10, "recv with MSG_TRUNC");
	NEED(text[0] == 'x' && text[9] == 'x', "MSG_TRUNC has written to the buffer");
	get(p->to, 10, 20);
}

static void read_into_parts(int fd, int by_recvmsg)
{
	struct iovec parts[] = {{text, 3}, {text + 3, 0}, {text + 3, 7}, {text + 10, 1990}};
	struct msghdr message = {.msg_iov = parts, .msg_iovlen = 4};
	ssize_t got = by_recvmsg ? recvmsg(fd, &message, 0) : readv(fd, parts, 4);

	NEED_IS(got, 1500, "bytes read into parts");
	same(text, 0, 1500);
	NEED_IS(message.msg_flags & ~MSG_CMSG_CLOEXEC, 0, "msg_flags");
}

static void recvmsg_parts(const struct pair *p)
{
	put(p->from, 0, 1500);
	arrive(p->to, 1500);
	read_into_parts(p->to, 1);
}

static void readv_parts(const struct pair *p)
{
	put(p->from, 0, 1000);
	put(p->from, 1000, 500);
	arrive(p->to, 1500);
	read_into_parts(p->to, 0);
}

static void recvmmsg_some(const struct pair *p)
{
	struct iovec parts[2] = {{text, 10}, {text + 10, 20}};
	struct mmsghdr messages[2] = {{.msg_hdr = {.msg_iov = &parts[0], .msg_iovlen = 1}},
				      {.msg_hdr = {.msg_iov = &parts[1], .msg_iovlen = 1}}};

	put(p->from, 0, 25);
	arrive(p->to, 25);
	NEED_IS(recvmmsg(p->to, messages, 2, MSG_DONTWAIT, 0), 2, "messages");
	NEED_IS(messages[0].msg_len, 10, "bytes of the first");
	NEED_IS(messages[1].msg_len, 15, "bytes of the second");
	same(text, 0, 25);
}

/* TCP_INQ: each read says how much is left. */
static void inq_message(const struct pair *p)
{
	char control[CMSG_SPACE(sizeof(int))];
	struct iovec part = {text, 10};
	struct msghdr message = {.msg_iov = &part,
				 .msg_iovlen = 1,
				 .msg_control = control,
				 .msg_controllen = sizeof(control)};
	struct cmsghdr *header;
	int one = 1, left;

	NEED(!setsockopt(p->to, IPPROTO_TCP, TCP_INQ, &one, sizeof(one)), "TCP_INQ");
	put(p->from, 0, 25);
	arrive(p->to, 25);
	NEED_IS(recvmsg(p->to, &message, 0), 10, "recvmsg");
	header = CMSG_FIRSTHDR(&message);
	NEED(header && header->cmsg_level == IPPROTO_TCP && header->cmsg_type == TCP_CM_INQ,
	     "recvmsg says nothing about what is left");
	memcpy(&left, CMSG_DATA(header), sizeof(left));
	NEED_IS(left, 15, "TCP_CM_INQ");
	get(p->to, 10, 15);
}

static void bad_buffer(const struct pair *p)
{
	void *nowhere = mmap(0, 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	put(p->from, 0, 10);
	arrive(p->to, 10);
	NEED_IS(recv(p->to, nowhere, 10, 0), -1, "recv to nowhere");
	NEED_IS(errno, EFAULT, "errno of a recv to nowhere");
	get(p->to, 0, 10);
}

static void nothing(const struct pair *p)
{
	NEED_IS(send(p->from, text, 0, 0), 0, "send of nothing");
	NEED_IS(events_of(p->to, POLLIN, QUIET_MS), 0, "events after a send of nothing");
	put(p->from, 0, 10);
	arrive(p->to, 10);
	NEED_IS(recv(p->to, text, 0, 0), 0, "recv of nothing");
	get(p->to, 0, 10);
}

static void rcvtimeo(const struct pair *p)
{
	struct timeval time = {0, 30000};

	NEED(!setsockopt(p->to, SOL_SOCKET, SO_RCVTIMEO, &time, sizeof(time)), "SO_RCVTIMEO");
	NEED_IS(recv(p->to, text, 10, 0), -1, "recv of nothing");
	NEED_IS(errno, EAGAIN, "errno of a recv of nothing");
	put(p->from, 0, 7);
	get(p->to, 0, 7);
	put(p->from, 7, 7);
	arrive(p->to, 7);
	NEED_IS(recv(p->to, text, 10, MSG_WAITALL), 7, "recv of a part until the time is over");
	same(text, 7, 7);
	put(p->from, 14, 1000);
	get(p->to, 14, 1000);
}

static void blocking_read_wakes(const struct pair *p)
{
	struct feeder later = {.fd = p->from, .bytes = 200, .chunk = 10, .pause_ms = 2, .shut = 1};

	feed(&later);
	get(p->to, 0, 200);
	get_end(p->to);
	fed(&later);
}

static void many_small(const struct pair *p)
{
	struct feeder bytes = {.fd = p->from, .bytes = 10000, .chunk = 1};
	int at;

	feed(&bytes);
	for (at = 0; at < 9996; at += 7)
		get(p->to, at, 7);
	get(p->to, at, 10000 - at);
	fed(&bytes);
}

/* splice(2) from a socket: all of it, whatever was read in another way before. */
static void splice_all(int fd, uint64_t offset, uint64_t end)
{
	int pipes[2];
	ssize_t got, part;

	NEED(!pipe(pipes), "pipe");
	for (; offset < end; offset += got) {
		NEED(events_of(fd, POLLIN, soon_ms) & POLLIN, "no POLLIN at offset %llu",
		     (unsigned long long)offset);
		got = splice(fd, 0, pipes[1], 0, 65536, SPLICE_F_NONBLOCK | SPLICE_F_MOVE);
		NEED(got > 0, "splice of a readable socket, offset %llu, gives %zd (errno: %s)",
		     (unsigned long long)offset, got, strerror(errno));
		for (part = 0; part < got;)
			part += read(pipes[0], text + part, got - part);
		same(text, offset, got);
	}
}

static void splice_from(const struct pair *p)
{
	struct feeder data = {.fd = p->from, .bytes = 1 << 20, .shut = 1};

	feed(&data);
	splice_all(p->to, 0, 1 << 20);
	fed(&data);
	get_end(p->to);
}

static void splice_blocks(const struct pair *p)
{
	struct feeder later = {.fd = p->from, .bytes = 1000, .chunk = 100, .pause_ms = 3};
	int pipes[2];

	alarm(1 + 2 * soon_ms / 1000); /* it hangs where it fails */
	NEED(!pipe(pipes), "pipe");
	set_nonblocking(p->to, 1);
	NEED_IS(splice(p->to, 0, pipes[1], 0, 100, 0), -1, "splice of nothing");
	NEED_IS(errno, EAGAIN, "errno of a splice of nothing");
	set_nonblocking(p->to, 0);
	feed(&later);
	NEED(splice(p->to, 0, pipes[1], 0, 10, 0) == 10, "a blocking splice");
	NEED_IS(read(pipes[0], text, 100), 10, "bytes in the pipe");
	same(text, 0, 10);
	fed(&later);
	get(p->to, 10, 990);
}

static void splice_mixed(const struct pair *p)
{
	put(p->from, 0, 40000);
	arrive(p->to, 40000);
	get(p->to, 0, 5001);
	splice_all(p->to, 5001, 40000);
	put(p->from, 40000, 100);
	get(p->to, 40000, 100);
}

static volatile sig_atomic_t urgent;

static void count_urgent(int number)
{
	(void)number;
	urgent++;
}

static int at_mark(int fd)
{
	int flag = -1;

	ioctl(fd, SIOCATMARK, &flag);
	return flag;
}

static void oob(const struct pair *p)
{
	signal(SIGURG, count_urgent);
	NEED(!fcntl(p->to, F_SETOWN, getpid()), "F_SETOWN");
	put(p->from, 0, 5);
	arrive(p->to, 5);
	NEED_IS(send(p->from, "X", 1, MSG_OOB), 1, "send of an urgent byte");
	NEED_IS(events_of(p->to, POLLPRI, soon_ms), POLLPRI, "events of an urgent byte");
	NEED_IS(urgent, 1, "SIGURG");
	put(p->from, 5, 5);
	NEED_IS(recv(p->to, text, 1, MSG_OOB), 1, "recv of the urgent byte");
	NEED_IS(text[0], 'X', "the urgent byte");
	NEED_IS(recv(p->to, text, 100, 0), 5, "recv up to the mark");
	same(text, 0, 5);
	NEED_IS(at_mark(p->to), 1, "SIOCATMARK");
	get(p->to, 5, 5);
	NEED_IS(at_mark(p->to), 0, "SIOCATMARK behind it");
	put(p->from, 10, 1000);
	get(p->to, 10, 1000);
}

static void oob_inline(const struct pair *p)
{
	int one = 1;

	NEED(!setsockopt(p->to, SOL_SOCKET, SO_OOBINLINE, &one, sizeof(one)), "SO_OOBINLINE");
	put(p->from, 0, 5);
	NEED_IS(send(p->from, "X", 1, MSG_OOB), 1, "send of an urgent byte");
	NEED_IS(events_of(p->to, POLLPRI, soon_ms), POLLPRI, "events of an urgent byte");
	put(p->from, 5, 5);
	arrive(p->to, 11);
	NEED_IS(recv(p->to, text, 100, 0), 5, "recv up to the mark");
	NEED_IS(at_mark(p->to), 1, "SIOCATMARK");
	NEED_IS(recv(p->to, text + 5, 100, 0), 6, "recv from the mark on");
	NEED_IS(text[5], 'X', "the urgent byte");
	same(text, 0, 5);
	same(text + 6, 5, 5);
}

const struct check read_checks[] = {{"peek_small", peek_small, 0},
				    {"peek_large", peek_large, 0},
				    {"peek_end", peek_end, 0},
				    {"peek_offset", peek_offset, 0},
				    {"waitall", waitall, 0},
				    {"waitall_pending", waitall_pending, 0},
				    {"waitall_end", waitall_end, 0},
				    {"dontwait", dontwait, 0},
				    {"trunc", truncated, 0},
				    {"recvmsg_parts", recvmsg_parts, 0},
				    {"readv_parts", readv_parts, 0},
				    {"recvmmsg", recvmmsg_some, 0},
				    {"inq_message", inq_message, 0},
				    {"bad_buffer", bad_buffer, 0},
				    {"nothing", nothing, 0},
				    {"rcvtimeo", rcvtimeo, 0},
				    {"blocking_read_wakes", blocking_read_wakes, 0},
				    {"many_small", many_small, 0},
				    {"splice_from", splice_from, 0},
				    {"splice_blocks", splice_blocks, 0},
				    {"splice_mixed", splice_mixed, 0},
				    {"oob", oob, 0},
				    {"oob_inline", oob_inline, 0},
				    {0, 0, 0}};
