/* What the test programs share: addresses, sockets, clocks. Everything here ends the program on
 * errors. */
#ifndef TOOLS_H
#define TOOLS_H

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <linux/tcp.h>
#include <sched.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

/* Where to listen, and where clients find that: elsewhere if something redirects them. */
struct place {
	const char *addr, *bind_addr, *client_netns;
	int port, bind_port;
};

__attribute__((noreturn, format(printf, 1, 2))) static inline void die(const char *format, ...)
{
	va_list words;

	va_start(words, format);
	vfprintf(stderr, format, words);
	va_end(words);
	fprintf(stderr, " (%s)\n", strerror(errno));
	exit(2);
}

static inline int64_t now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000ll + t.tv_nsec / 1000000;
}

static inline void sleep_ms(int ms)
{
	struct timespec t = {ms / 1000, ms % 1000 * 1000000l};

	nanosleep(&t, 0);
}

static inline socklen_t address(struct sockaddr_storage *to, const char *addr, int port)
{
	struct sockaddr_in *v4 = (void *)to;
	struct sockaddr_in6 *v6 = (void *)to;

	memset(to, 0, sizeof(*to));
	if (inet_pton(AF_INET, addr, &v4->sin_addr) == 1) {
		v4->sin_family = AF_INET;
		v4->sin_port = htons(port);
		return sizeof(*v4);
	}
	if (inet_pton(AF_INET6, addr, &v6->sin6_addr) != 1)
		die("%s is no address", addr);
	v6->sin6_family = AF_INET6;
	v6->sin6_port = htons(port);
	return sizeof(*v6);
}

static inline int port_of(int fd)
{
	struct sockaddr_storage is;
	socklen_t size = sizeof(is);

	if (getsockname(fd, (void *)&is, &size))
		die("getsockname");
	return ntohs(((struct sockaddr_in *)&is)->sin_port);
}

/* A listening socket; -1 if the port is taken. */
static inline int listen_at(const char *addr, int port, int flags)
{
	struct sockaddr_storage at;
	socklen_t size = address(&at, addr, port);
	int one = 1, fd = socket(at.ss_family, SOCK_STREAM | SOCK_CLOEXEC | flags, 0);

	if (fd < 0)
		die("socket");
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	if (bind(fd, (void *)&at, size) || listen(fd, 16384)) {
		close(fd);
		return -1;
	}
	return fd;
}

/* Listens where the place says, and writes down where clients find it. */
static inline int listen_for(struct place *place)
{
	int fd = listen_at(place->bind_addr ? place->bind_addr : place->addr, place->bind_port, 0);

	if (fd < 0)
		die("cannot listen at port %d", place->bind_port);
	if (!place->port)
		place->port = port_of(fd);
	return fd;
}

/* Sockets belong to the network namespace of the thread that makes them, whoever uses them later.
 */
static inline int client_socket(const struct place *place, int family)
{
	char path[256];
	int fd, there, here = -1;

	if (place->client_netns) {
		snprintf(path, sizeof(path), "/run/netns/%s", place->client_netns);
		here = open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC);
		there = open(path, O_RDONLY | O_CLOEXEC);
		if (here < 0 || there < 0 || setns(there, CLONE_NEWNET))
			die("%s", path);
		close(there);
	}
	fd = socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (here >= 0) {
		if (setns(here, CLONE_NEWNET))
			die("setns");
		close(here);
	}
	return fd;
}

static inline int connect_to(const struct place *place)
{
	struct sockaddr_storage to;
	socklen_t size = address(&to, place->addr, place->port);
	int fd = client_socket(place, to.ss_family);

	if (fd < 0 || connect(fd, (void *)&to, size))
		die("cannot connect to %s port %d", place->addr, place->port);
	return fd;
}

static inline void set_nonblocking(int fd, int on)
{
	int flags = fcntl(fd, F_GETFL);

	if (fcntl(fd, F_SETFL, on ? flags | O_NONBLOCK : flags & ~O_NONBLOCK))
		die("fcntl");
}

static inline void allow_files(rlim_t wanted)
{
	struct rlimit limit;

	getrlimit(RLIMIT_NOFILE, &limit);
	if (limit.rlim_cur >= wanted)
		return;
	limit.rlim_cur = wanted;
	if (limit.rlim_max < wanted)
		limit.rlim_max = wanted;
	if (setrlimit(RLIMIT_NOFILE, &limit))
		die("%lu open files are not allowed", (unsigned long)wanted);
}

/* One option of a command line. */
struct knob {
	const char *name;
	char type; /* s: text, i: int, u: uint64_t, f: int that becomes 1, without a value */
	void *to;
};

#define PLACE_KNOBS(place)                                                                         \
	{"--addr", 's', &(place).addr}, {"--port", 'i', &(place).port},                            \
	    {"--bind-addr", 's', &(place).bind_addr}, {"--bind-port", 'i', &(place).bind_port},    \
	{                                                                                          \
		"--client-netns", 's', &(place).client_netns                                       \
	}

static inline void parse_knobs(const struct knob *knobs, char **words)
{
	const struct knob *knob;

	while (*++words) {
		for (knob = knobs; knob->name && strcmp(knob->name, *words); knob++)
			;
		if (!knob->name || (knob->type != 'f' && !words[1]))
			die("%s: unknown, or without its value", *words);
		if (knob->type == 'f')
			*(int *)knob->to = 1;
		else if (knob->type == 'i')
			*(int *)knob->to = atoi(*++words);
		else if (knob->type == 'u')
			*(uint64_t *)knob->to = strtoull(*++words, 0, 0);
		else
			*(char **)knob->to = *++words;
	}
}

#endif
