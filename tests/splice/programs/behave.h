/* Checks of what an application sees of a TCP connection; each has a fresh one, in a process of its
 * own. */
#ifndef BEHAVE_H
#define BEHAVE_H

#include "content.h"
#include "tools.h"

#include <poll.h>
#include <pthread.h>
#include <sys/socket.h>

#define QUIET_MS 10 /* after that long without an event we believe that none comes */

struct pair {
	int from, to; /* the end that mostly sends, and the one that mostly reads */
};

struct check {
	const char *name;
	void (*run)(const struct pair *pair);
	int unconnected; /* makes its connection itself, once, from client to server */
};

extern const struct check readiness_checks[], read_checks[], write_checks[], end_checks[],
    share_checks[];
extern int listener, soon_ms; /* within soon_ms an event that must come comes */
extern int non_blocking;      /* sockets have O_NONBLOCK, and poll waits for them */
extern struct place place;

/* The check has failed: says what was seen, and ends it. */
__attribute__((noreturn, format(printf, 2, 3))) void not_ok(int line, const char *format, ...);
/* A fact that is only reported. */
__attribute__((format(printf, 1, 2))) void note(const char *format, ...);

#define NEED(condition, ...)                                                                       \
	do {                                                                                       \
		if (!(condition))                                                                  \
			not_ok(__LINE__, __VA_ARGS__);                                             \
	} while (0)
#define NEED_IS(got, due, what)                                                                    \
	do {                                                                                       \
		long long got_ = (got), due_ = (due);                                              \
		NEED(got_ == due_, "%s is %lld, not %lld (errno: %s)", what, got_, due_,           \
		     strerror(errno));                                                             \
	} while (0)

int new_client(void);
int accepted(void);
/* 0 if there is nothing to wait for: the socket blocks, or the event does not come. Keeps errno. */
int waits_for(int fd, int event);

/* As a program does whose sockets have O_NONBLOCK: try, poll, try again. A send sends all. */
ssize_t patient_recv(int fd, void *to, size_t bytes, int flags);
ssize_t patient_send(int fd, const void *from, size_t bytes, int flags);
#define recv(fd, to, bytes, flags)   patient_recv(fd, to, bytes, flags)
#define send(fd, from, bytes, flags) patient_send(fd, from, bytes, flags)

int pending(int fd);		     /* FIONREAD */
void await_pending(int fd, int due); /* until so many bytes can be read, no more and no fewer */
void arrive(int fd, int due);	     /* the same for checks of other things: it fails nothing */
int events_of(int fd, int wanted, int ms);
void put(int fd, uint64_t offset, size_t bytes); /* sends a part of the content, in one call */
void same(const void *from, uint64_t offset, size_t bytes);
void get(int fd, uint64_t offset, size_t bytes); /* reads just these, and checks them */
void get_end(int fd);				 /* the next read gives 0 */
uint64_t fill_up(int fd, uint64_t offset); /* sends until it would block; the offset reached */

/* A thread that sends content, `chunk` bytes in a call, and shuts its half down if so asked. */
struct feeder {
	pthread_t thread;
	int fd, shut, pause_ms;
	uint64_t offset, bytes, chunk;
};
void feed(struct feeder *feeder);
void fed(struct feeder *feeder);

#endif
