/* Preloaded into a test process: counts its file operations from arm() on, and at a chosen one either ends the process
 * with SIGKILL (a write is torn: half of it is done) or fills the disk (from there on every write fails with ENOSPC). */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

enum { OFF, COUNT, KILL, FULL };

static int mode;
static long at, seen;
static char trace[1 << 16];

void arm(int new_mode, long operation) {
  seen = 0;
  trace[0] = 0;
  at = operation;
  mode = new_mode;
}

long disarm(void) {
  mode = OFF;
  return seen;
}

const char *operations(void) { return trace; }

static void die(void) {
  kill(getpid(), SIGKILL);
  pause();
}

/* Counts one operation; says whether it is the one at which the process ends. */
static int last(const char *name) {
  if (mode == OFF) return 0;
  seen++;
  if (mode == COUNT && strlen(trace) + strlen(name) + 2 < sizeof trace) strcat(strcat(trace, name), " ");
  return mode == KILL && seen == at;
}

static int full(void) {
  if (mode != FULL || seen < at) return 0;
  errno = ENOSPC;
  return 1;
}

#define REAL(result, name, ...) \
  static result (*real)(__VA_ARGS__); \
  if (!real) *(void **)&real = dlsym(RTLD_NEXT, #name)

ssize_t write(int fd, const void *data, size_t size) {
  REAL(ssize_t, write, int, const void *, size_t);
  if (fd > 2 && last("write")) {
    real(fd, data, size / 2);
    die();
  }
  return fd > 2 && full() ? -1 : real(fd, data, size);
}

ssize_t writev(int fd, const struct iovec *parts, int count) {
  REAL(ssize_t, writev, int, const struct iovec *, int);
  if (last("writev")) {
    real(fd, parts, count / 2);
    die();
  }
  return full() ? -1 : real(fd, parts, count);
}

#define OPEN(name, ...) \
  va_list rest; \
  va_start(rest, flags); \
  mode_t permission = flags & O_CREAT ? va_arg(rest, mode_t) : 0; \
  va_end(rest); \
  if (flags & (O_CREAT | O_TRUNC)) { \
    if (last("open")) die(); \
    if (full()) return -1; \
  } \
  return real(__VA_ARGS__, flags, permission)

int open(const char *path, int flags, ...) {
  REAL(int, open, const char *, int, ...);
  OPEN(open, path);
}

int open64(const char *path, int flags, ...) {
  REAL(int, open64, const char *, int, ...);
  OPEN(open64, path);
}

int openat(int folder, const char *path, int flags, ...) {
  REAL(int, openat, int, const char *, int, ...);
  OPEN(openat, folder, path);
}

#define PLAIN(name, needs_space, parameters, arguments) \
  int name parameters { \
    static int (*real) parameters; \
    if (!real) *(void **)&real = dlsym(RTLD_NEXT, #name); \
    if (last(#name)) die(); \
    if (needs_space && full()) return -1; \
    return real arguments; \
  }

PLAIN(mkdir, 1, (const char *path, mode_t permission), (path, permission))
PLAIN(rename, 0, (const char *from, const char *to), (from, to))
PLAIN(unlink, 0, (const char *path), (path))
PLAIN(unlinkat, 0, (int folder, const char *path, int flags), (folder, path, flags))
PLAIN(rmdir, 0, (const char *path), (path))
PLAIN(ftruncate64, 1, (int fd, off64_t size), (fd, size))
PLAIN(ftruncate, 1, (int fd, off_t size), (fd, size))

/* Counted, not done: a kill loses nothing that the kernel has, and hundreds of them would be waiting for the disk. */
int fsync(int fd) {
  (void)fd;
  if (last("fsync")) die();
  return 0;
}

FILE *fopen64(const char *path, const char *how) {
  REAL(FILE *, fopen64, const char *, const char *);
  if (strpbrk(how, "wa+") && last("fopen")) die();
  return strpbrk(how, "wa+") && full() ? NULL : real(path, how);
}

ssize_t sendfile(int to, int from, off_t *offset, size_t count) {
  REAL(ssize_t, sendfile, int, int, off_t *, size_t);
  if (last("sendfile")) die();
  return full() ? -1 : real(to, from, offset, count);
}

ssize_t sendfile64(int to, int from, off64_t *offset, size_t count) {
  REAL(ssize_t, sendfile64, int, int, off64_t *, size_t);
  if (last("sendfile")) die();
  return full() ? -1 : real(to, from, offset, count);
}

ssize_t copy_file_range(int from, off64_t *a, int to, off64_t *b, size_t count, unsigned flags) {
  REAL(ssize_t, copy_file_range, int, off64_t *, int, off64_t *, size_t, unsigned);
  if (last("copy_file_range")) die();
  return full() ? -1 : real(from, a, to, b, count, flags);
}
