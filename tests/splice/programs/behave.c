/* behave [--addr A] [--port P] [--bind-addr A] [--bind-port P] [--client-netns NAME]
	  [--only a,b,...] [--warm-up ROUNDS] [--rehearse CONNECTIONS] [--timeout S] [--soon MS]
	  [--non-blocking]

   Prints "ok NAME/WAY" or "not ok NAME/WAY: what was seen" for each check, WAY being c2s or s2c,
   and lines with # for facts that are only reported. The exit status is 1 if a check was not ok.
   --warm-up: small messages go both ways before. --rehearse: so many connections that only send and
   receive small messages come before each check. --non-blocking: the sockets have O_NONBLOCK, and
   what would wait in the kernel polls first. The name of the process (comm) is "b-" and that of
   the check, when it makes its sockets, the listening one too. */
#include "behave.h"

#include <signal.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/wait.h>

#define MESSAGE	    16
#define PATIENCE_MS 3000 /* of what would wait in the kernel */

int listener, soon_ms = 2000, non_blocking;
struct place place = {.addr = "127.0.0.1"};
static int warm_up, rehearse, timeout_s = 10;
static const char *only;
static char label[64];

void not_ok(int line, const char *format, ...)
{
	va_list words;

	flockfile(stdout);
	printf("not ok %s: ", label);
	va_start(words, format);
	vprintf(format, words);
	va_end(words);
	printf(" [line %d]\n", line);
	fflush(stdout);
	_exit(1);
}

void note(const char *format, ...)
{
	va_list words;

	printf("# %s: ", label);
	va_start(words, format);
	vprintf(format, words);
	va_end(words);
	printf("\n");
	fflush(stdout);
}

static int opened(int fd)
{
	NEED(fd >= 0, "no connection: %s", strerror(errno));
	if (non_blocking)
		set_nonblocking(fd, 1);
	return fd;
}

int new_client(void)
{
	return opened(connect_to(&place));
}

int accepted(void)
{
	return opened(accept(listener, 0, 0));
}

int waits_for(int fd, int event)
{
	struct pollfd one = {fd, event, 0};
	int came, before = errno;

	if (!non_blocking || errno != EAGAIN)
		return 0;
	came = poll(&one, 1, PATIENCE_MS);
	errno = before;
	return came > 0;
}

ssize_t patient_recv(int fd, void *to, size_t bytes, int flags)
{
	ssize_t got;

	do
		got = (recv)(fd, to, bytes, flags);
	while (got < 0 && !(flags & MSG_DONTWAIT) && waits_for(fd, POLLIN));
	return got;
}

ssize_t patient_send(int fd, const void *from, size_t bytes, int flags)
{
	size_t done = 0;
	ssize_t got;

	do {
		got = (send)(fd, (const char *)from + done, bytes - done, flags);
		if (got > 0)
			done += got;
		if (flags & MSG_DONTWAIT || done == bytes)
			break;
	} while ((got > 0 && non_blocking) || (got < 0 && waits_for(fd, POLLOUT)));
	return done ? (ssize_t)done : got;
}

int pending(int fd)
{
	int bytes = -1;

	NEED(!ioctl(fd, FIONREAD, &bytes), "FIONREAD: %s", strerror(errno));
	return bytes;
}

void await_pending(int fd, int due)
{
	int64_t end = now_ms() + soon_ms;

	while (pending(fd) != due && now_ms() < end)
		sleep_ms(1);
	NEED_IS(pending(fd), due, "FIONREAD");
}

void arrive(int fd, int due)
{
	int64_t end = now_ms() + 5 * QUIET_MS;

	while (pending(fd) < due && now_ms() < end)
		sleep_ms(1);
}

int events_of(int fd, int wanted, int ms)
{
	struct pollfd one = {fd, wanted, 0};

	NEED(poll(&one, 1, ms) >= 0, "poll: %s", strerror(errno));
	return one.revents;
}

static char *content(uint64_t offset, size_t bytes)
{
	char *text = malloc(bytes + 1);

	NEED(text, "no memory");
	content_fill(1, offset, text, bytes);
	return text;
}

void put(int fd, uint64_t offset, size_t bytes)
{
	char *text = content(offset, bytes);

	NEED_IS(send(fd, text, bytes, 0), (long long)bytes, "send");
	free(text);
}

void same(const void *from, uint64_t offset, size_t bytes)
{
	ssize_t wrong = content_wrong(1, offset, from, bytes);

	if (wrong < 0)
		return;
	NEED(0, "at offset %llu: wrong content, it belongs to offset %lld",
	     (unsigned long long)offset + wrong,
	     (long long)content_locate(1, (const char *)from + wrong, bytes - wrong));
}

void get(int fd, uint64_t offset, size_t bytes)
{
	static __thread char text[256 * 1024];
	ssize_t got;

	for (; bytes; bytes -= got, offset += got) {
		got = recv(fd, text, bytes < sizeof(text) ? bytes : sizeof(text), 0);
		NEED(got > 0, "recv at offset %llu gives %zd (errno: %s), %zu bytes are missing",
		     (unsigned long long)offset, got, strerror(errno), bytes);
		same(text, offset, got);
	}
}

void get_end(int fd)
{
	char byte;

	NEED_IS(recv(fd, &byte, 1, 0), 0, "recv at the end");
}

uint64_t fill_up(int fd, uint64_t offset)
{
	size_t size = 64 * 1024;
	int quiet = 0;
	char *text;
	ssize_t got;

	/* What is on its way may make room once more. */
	while (quiet < 3) {
		text = content(offset, size);
		got = send(fd, text, size, MSG_DONTWAIT | MSG_NOSIGNAL);
		free(text);
		NEED(got > 0 || errno == EAGAIN, "send: %s", strerror(errno));
		NEED(offset < 256 << 20, "more than 256 MiB go to a reader that does not read");
		if (got > 0)
			offset += got;
		else
			sleep_ms(5), quiet++;
	}
	return offset;
}

static void *feeding(void *argument)
{
	struct feeder *f = argument;
	uint64_t done, part;

	for (done = 0; done < f->bytes; done += part) {
		part = f->bytes - done < f->chunk ? f->bytes - done : f->chunk;
		if (f->pause_ms)
			sleep_ms(f->pause_ms);
		put(f->fd, f->offset + done, part);
	}
	if (f->shut)
		shutdown(f->fd, SHUT_WR);
	return 0;
}

void feed(struct feeder *f)
{
	if (!f->chunk)
		f->chunk = 64 * 1024;
	NEED(!pthread_create(&f->thread, 0, feeding, f), "no thread");
}

void fed(struct feeder *f)
{
	pthread_join(f->thread, 0);
}

static void talk(const struct pair *pair, int rounds)
{
	char text[MESSAGE], back[MESSAGE];

	for (; rounds > 0; rounds--) {
		memset(text, rounds, MESSAGE);
		NEED_IS(send(pair->from, text, MESSAGE, 0), MESSAGE, "warm-up");
		NEED_IS(recv(pair->to, back, MESSAGE, 0), MESSAGE, "warm-up");
		NEED_IS(send(pair->to, back, MESSAGE, 0), MESSAGE, "warm-up");
		NEED_IS(recv(pair->from, back, MESSAGE, 0), MESSAGE, "warm-up");
		NEED(!memcmp(text, back, MESSAGE), "warm-up: wrong content");
	}
}

static struct pair open_pair(int backwards)
{
	int client = new_client(), server = accepted();

	return backwards ? (struct pair){server, client} : (struct pair){client, server};
}

static void run_check(const struct check *check, int backwards)
{
	char name[16];
	struct pair pair = {-1, -1};
	int i;

	alarm(timeout_s);
	snprintf(name, sizeof(name), "b-%s", check->name);
	prctl(PR_SET_NAME, name);
	listener = listen_for(&place);
	for (i = 0; i < rehearse; i++) {
		pair = open_pair(backwards);
		talk(&pair, 20);
		close(pair.from);
		close(pair.to);
	}
	if (!check->unconnected) {
		pair = open_pair(backwards);
		talk(&pair, warm_up);
	}
	errno = 0;
	check->run(&pair);
	printf("ok %s\n", label);
	fflush(stdout);
	_exit(0);
}

/* 1 if it was not ok. */
static int judge(const struct check *check, int backwards)
{
	int status = 0;
	pid_t child;

	snprintf(label, sizeof(label), "%s/%s", check->name, backwards ? "s2c" : "c2s");
	fflush(stdout);
	child = fork();
	if (child < 0)
		die("fork");
	if (!child)
		run_check(check, backwards);
	waitpid(child, &status, 0);
	if (WIFSIGNALED(status) && WTERMSIG(status) == SIGALRM)
		printf("not ok %s: hung\n", label);
	else if (WIFSIGNALED(status))
		printf("not ok %s: signal %d\n", label, WTERMSIG(status));
	else if (WEXITSTATUS(status) > 1)
		printf("not ok %s: status %d\n", label, WEXITSTATUS(status));
	return status != 0;
}

static int is_chosen(const char *name)
{
	const char *at;
	size_t size = strlen(name);

	for (at = only; at && (at = strstr(at, name)); at++)
		if ((at == only || at[-1] == ',') && (!at[size] || at[size] == ','))
			return 1;
	return !only;
}

int main(int count __attribute__((unused)), char **words)
{
	static const struct check *const groups[] = {readiness_checks, read_checks, write_checks,
						     end_checks, share_checks};
	const struct knob knobs[] = {PLACE_KNOBS(place),
				     {"--only", 's', &only},
				     {"--warm-up", 'i', &warm_up},
				     {"--rehearse", 'i', &rehearse},
				     {"--timeout", 'i', &timeout_s},
				     {"--soon", 'i', &soon_ms},
				     {"--non-blocking", 'f', &non_blocking},
				     {0, 0, 0}};
	const struct check *check;
	int failed = 0;
	size_t i;

	parse_knobs(knobs, words);
	for (i = 0; i < sizeof(groups) / sizeof(groups[0]); i++)
		for (check = groups[i]; check->name; check++) {
			if (!is_chosen(check->name))
				continue;
			failed |= judge(check, 0);
			if (!check->unconnected)
				failed |= judge(check, 1);
		}
	return failed;
}
