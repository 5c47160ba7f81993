/* A library for LD_PRELOAD that breaks one thing, as naive splicing or a bad relay would: each
   check of these programs is shown to fail with what it looks for. NAIVE names the thing. */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

static int breaks(const char *thing)
{
	const char *chosen = getenv("NAIVE");

	return chosen && !strcmp(chosen, thing);
}

int ioctl(int fd, unsigned long request, ...)
{
	va_list words;
	void *argument;
	int status;

	va_start(words, request);
	argument = va_arg(words, void *);
	va_end(words);
	status = REAL(ioctl)(fd, request, argument);
	if (request == FIONREAD && breaks("fionread"))
		*(int *)argument = 0;
	return status;
}

int setsockopt(int fd, int level, int name, const void *value, socklen_t size)
{
	if (level == SOL_SOCKET && name == SO_RCVLOWAT && breaks("rcvlowat"))
		return 0;
	if (level == SOL_SOCKET && name == SO_LINGER && breaks("reset"))
		return 0;
	return REAL(setsockopt)(fd, level, name, value, size);
}

ssize_t splice(int from, off64_t *from_at, int to, off64_t *to_at, size_t size, unsigned flags)
{
	int type;
	socklen_t length = sizeof(type);

	if (breaks("splice") && !getsockopt(from, SOL_SOCKET, SO_TYPE, &type, &length)) {
		errno = EAGAIN;
		return -1;
	}
	return REAL(splice)(from, from_at, to, to_at, size, flags);
}

ssize_t recv(int fd, void *to, size_t size, int flags)
{
	if (breaks("waitall"))
		flags &= ~MSG_WAITALL;
	if (breaks("peek"))
		flags &= ~MSG_PEEK;
	if (breaks("trunc"))
		flags &= ~MSG_TRUNC;
	if (breaks("oob") && flags & MSG_OOB) {
		errno = EINVAL;
		return -1;
	}
	return REAL(recv)(fd, to, size, flags);
}

/* What is written: the 500th block of a process is lost, given twice, or changes its place with the
 * next one. */
ssize_t send(int fd, const void *from, size_t size, int flags)
{
	static __thread int calls;
	static __thread char kept[1 << 18];
	static __thread size_t kept_size;

	if (++calls == 500 && size <= sizeof(kept) && breaks("lose"))
		return size;
	if (calls == 500 && breaks("repeat"))
		REAL(send)(fd, from, size, flags);
	if (calls == 500 && size <= sizeof(kept) && breaks("swap")) {
		memcpy(kept, from, size);
		return kept_size = size;
	}
	if (calls == 501 && breaks("swap")) {
		REAL(send)(fd, from, size, flags);
		REAL(send)(fd, kept, kept_size, flags);
		return size;
	}
	return REAL(send)(fd, from, size, flags);
}

int shutdown(int fd, int how)
{
	return breaks("end") ? 0 : REAL(shutdown)(fd, how);
}
