/* Kill this process at its n-th system call that could leave something half-done, or let that call fail.

       cc -shared -fPIC -o faults.so faults.c -ldl;  LD_PRELOAD=faults.so python -m tests.support.faulting …

   Nothing happens before faults_arm(): a process imports everything once, and each of its children arms the
   library for a point of its own. Only calls on paths and open files below the armed folder count. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

enum { KILL = -1, HALF = -2 };         /* what a call meets, else a value of errno */
enum { ASKS, CHANGES, TAKES };         /* what a call does: nothing to the folder, something, or something that takes space */

static char root[PATH_MAX];
static long point;
static int fault, lasting;
static atomic_long counted;
static char kinds[1 << 16];

/* Let call number *at* below *folder* meet *what*; if *stays*, each later call that takes space meets it, too. */
void faults_arm(const char *folder, long at, int what, int stays) {
    snprintf(root, sizeof root, "%s", folder);
    point = at, fault = what, lasting = stays, counted = 0;
}

/* Say what each call did, a digit each. */
const char *faults_seen(void) { return kinds + 1; }

static int below(const char *path) {
    size_t size = strlen(root);
    return size && !strncmp(path, root, size) && (path[size] == '/' || !path[size]);
}

static int file(int handle) { /* proc(5): /proc/pid/fd */
    char link[64], path[PATH_MAX];
    if (!*root) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", handle);
    ssize_t size = readlink(link, path, sizeof path - 1);
    if (size < 0) return 0;
    path[size] = 0;
    return below(path);
}

static int at(int folder, const char *path) { return *path == '/' || folder == AT_FDCWD ? below(path) : file(folder); }

/* Count a call below the folder; return whether it fails. */
static int strike(int counts, int kind) {
    if (!counts) return 0;
    long number = ++counted;
    kinds[number % sizeof kinds] = '0' + kind;
    if (number != point && !(lasting && number > point && kind == TAKES)) return 0;
    if (fault == KILL) kill(getpid(), SIGKILL), pause();
    if (fault == HALF) return 0;
    errno = fault;
    return 1;
}

/* A disk that is nearly full takes a part of what is written. */
static size_t part(size_t size) { return *root && fault == HALF && size > 1 ? size / 2 : size; }

#define CALL(type, name, parameters, arguments, counts, kind)                                                         \
    type name parameters {                                                                                            \
        static type(*next) parameters;                                                                                \
        if (!next) next = (type(*) parameters)dlsym(RTLD_NEXT, #name);                                                \
        return *root && strike(counts, kind) ? -1 : next arguments;                                                   \
    }

typedef int opens(const char *, int, ...);
typedef int opens_at(int, const char *, int, ...);

#define OPEN(type, name, parameters, arguments, counts)                                                               \
    int name parameters {                                                                                             \
        static type *next;                                                                                            \
        va_list rest;                                                                                                 \
        va_start(rest, flags);                                                                                        \
        mode_t mode = flags & O_CREAT || (flags & O_TMPFILE) == O_TMPFILE ? va_arg(rest, mode_t) : 0;                 \
        va_end(rest);                                                                                                 \
        if (!next) next = (type *)dlsym(RTLD_NEXT, #name);                                                            \
        return *root && strike(counts, flags & O_CREAT ? TAKES : flags & O_TRUNC ? CHANGES : ASKS) ? -1 : next arguments;\
    }

OPEN(opens, open, (const char *path, int flags, ...), (path, flags, mode), below(path))
OPEN(opens, open64, (const char *path, int flags, ...), (path, flags, mode), below(path))
OPEN(opens_at, openat, (int folder, const char *path, int flags, ...), (folder, path, flags, mode), at(folder, path))
OPEN(opens_at, openat64, (int folder, const char *path, int flags, ...), (folder, path, flags, mode), at(folder, path))

CALL(ssize_t, write, (int to, const void *data, size_t size), (to, data, part(size)), file(to), TAKES)
CALL(ssize_t, writev, (int to, const struct iovec *parts, int count), (to, parts, count), file(to), TAKES)
CALL(ssize_t, pwrite, (int to, const void *data, size_t size, off_t where), (to, data, part(size), where), file(to), TAKES)
CALL(ssize_t, pwrite64, (int to, const void *data, size_t size, off64_t where), (to, data, part(size), where), file(to), TAKES)
CALL(ssize_t, copy_file_range, (int from, off64_t *start, int to, off64_t *where, size_t size, unsigned flags),
     (from, start, to, where, part(size), flags), file(to), TAKES)
CALL(ssize_t, sendfile64, (int to, int from, off64_t *start, size_t size), (to, from, start, part(size)), file(to), TAKES)
CALL(int, ftruncate64, (int to, off64_t size), (to, size), file(to), CHANGES)
CALL(int, fsync, (int to), (to), file(to), ASKS)
CALL(int, fdatasync, (int to), (to), file(to), ASKS)
CALL(int, rename, (const char *old, const char *new), (old, new), below(new), TAKES)
CALL(int, renameat, (int from, const char *old, int to, const char *new), (from, old, to, new), at(to, new), TAKES)
CALL(int, renameat2, (int from, const char *old, int to, const char *new, unsigned flags), (from, old, to, new, flags), at(to, new), TAKES)
CALL(int, link, (const char *old, const char *new), (old, new), below(new), TAKES)
CALL(int, linkat, (int from, const char *old, int to, const char *new, int flags), (from, old, to, new, flags), at(to, new), TAKES)
CALL(int, symlink, (const char *old, const char *new), (old, new), below(new), TAKES)
CALL(int, symlinkat, (const char *old, int to, const char *new), (old, to, new), at(to, new), TAKES)
CALL(int, mkdir, (const char *path, mode_t mode), (path, mode), below(path), TAKES)
CALL(int, mkdirat, (int folder, const char *path, mode_t mode), (folder, path, mode), at(folder, path), TAKES)
CALL(int, unlink, (const char *path), (path), below(path), CHANGES)
CALL(int, unlinkat, (int folder, const char *path, int flags), (folder, path, flags), at(folder, path), CHANGES)
CALL(int, rmdir, (const char *path), (path), below(path), CHANGES)
CALL(int, chmod, (const char *path, mode_t mode), (path, mode), below(path), CHANGES)
CALL(int, fchmod, (int to, mode_t mode), (to, mode), file(to), CHANGES)
CALL(int, fchmodat, (int folder, const char *path, mode_t mode, int flags), (folder, path, mode, flags), at(folder, path), CHANGES)
