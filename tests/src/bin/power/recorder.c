/* Loaded into a server with LD_PRELOAD: writes down what the server does to the files below POWER_ROOT, in
 * the order in which it is done, at the end of the file POWER_LOG, which all servers share.
 *
 * A change is written down after it was made and before the server hears of it. Of a sync both ends are,
 * since it stands for what was written before it began. sync_file_range is passed on and not written down:
 * it promises nothing about a loss of power.
 *
 * With POWER_FAIL_AFTER=n and POWER_FAIL_ERRNO=e, the n-th change or sync and all that follow fail with e.
 *
 * A record: length of what follows u32, kind u8, inode u64, number u64, and text or bytes. Native byte order.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

enum { CREATED = 1, FOLDER, WRITTEN, CUT, SYNC_BEGINS, SYNCED, RENAMED, REMOVED };

#define FILES_MAX 65536

static const char *root;
static size_t root_length;
static int record_file = -1;
static char start_folder[PATH_MAX];
/* Which open files lie below the root. */
static _Atomic char watched[FILES_MAX];
static atomic_ulong sync_number;
static atomic_long left = -1;
static int fail_errno;

__attribute__((constructor)) static void attach(void) {
    const char *path = getenv("POWER_LOG");
    root = getenv("POWER_ROOT");
    if (!path || !root) return;
    root_length = strlen(root);
    if (!getcwd(start_folder, sizeof start_folder)) _exit(119);
    record_file = (int)syscall(SYS_openat, AT_FDCWD, path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0644);
    if (record_file < 0) _exit(119);
    sync_number = (unsigned long)getpid() << 32;
    const char *after = getenv("POWER_FAIL_AFTER"), *error = getenv("POWER_FAIL_ERRNO");
    if (after && error) {
        left = atol(after);
        fail_errno = atoi(error);
    }
}

/* The absolute path, if it lies below the root. */
static const char *below_root(int folder, const char *path, char *buffer) {
    if (record_file < 0 || !path) return NULL;
    if (path[0] != '/') {
        char link[64];
        ssize_t length = 0;
        if (folder == AT_FDCWD) {
            length = (ssize_t)strlen(start_folder);
            memcpy(buffer, start_folder, (size_t)length);
        } else {
            snprintf(link, sizeof link, "/proc/self/fd/%d", folder);
            length = readlink(link, buffer, PATH_MAX - 1);
            if (length < 0) return NULL;
        }
        if ((size_t)length + strlen(path) + 2 > PATH_MAX) return NULL;
        buffer[length] = '/';
        strcpy(buffer + length + 1, path);
        path = buffer;
    }
    if (strncmp(path, root, root_length) != 0 || path[root_length] != '/') return NULL;
    return path + root_length + 1;
}

static void record(char kind, uint64_t inode, uint64_t number, const struct iovec *parts, int count, size_t bytes) {
    struct __attribute__((packed)) {
        uint32_t length;
        char kind;
        uint64_t inode, number;
    } head = {(uint32_t)(17 + bytes), kind, inode, number};
    struct iovec all[1 + 64] = {{&head, sizeof head}};
    int used = 1;
    size_t rest = bytes;
    for (int i = 0; i < count && used < 65 && rest > 0; i++) {
        all[used] = parts[i];
        if (all[used].iov_len > rest) all[used].iov_len = rest;
        rest -= all[used].iov_len;
        used++;
    }
    ssize_t written = syscall(SYS_writev, record_file, all, used);
    if (rest != 0 || written != (ssize_t)(sizeof head + bytes)) _exit(119);
}

static void record_text(char kind, uint64_t inode, const char *text, size_t bytes) {
    struct iovec part = {(void *)text, bytes};
    record(kind, inode, 0, &part, 1, bytes);
}

static int is_watched(int file) { return file >= 0 && file < FILES_MAX && watched[file]; }

static uint64_t inode_of(int file) {
    struct stat found;
    return fstat(file, &found) == 0 ? (uint64_t)found.st_ino : 0;
}

/* Whether the change must not be made. */
static int fails(void) {
    if (fail_errno == 0 || atomic_fetch_sub(&left, 1) > 0) return 0;
    errno = fail_errno;
    return 1;
}

static int open_at(int folder, const char *path, int flags, mode_t mode) {
    char buffer[PATH_MAX];
    const char *name = below_root(folder, path, buffer);
    struct stat before;
    int is_new = name && (flags & O_CREAT) && fstatat(folder, path, &before, 0) != 0;
    int writes = (flags & O_ACCMODE) != O_RDONLY;
    if (name && (is_new || (writes && (flags & O_TRUNC))) && fails()) return -1;
    int file = (int)syscall(SYS_openat, folder, path, flags, mode);
    if (file < 0 || file >= FILES_MAX || !name) return file;
    int saved = errno;
    watched[file] = 1;
    if (is_new) record_text(CREATED, inode_of(file), name, strlen(name));
    else if (writes && (flags & O_TRUNC)) record(CUT, inode_of(file), 0, NULL, 0, 0);
    errno = saved;
    return file;
}

#define MODE(flags) \
    mode_t mode = 0; \
    if ((flags) & (O_CREAT | O_TMPFILE)) { \
        va_list list; \
        va_start(list, flags); \
        mode = (mode_t)va_arg(list, int); \
        va_end(list); \
    }

int open(const char *path, int flags, ...) { MODE(flags) return open_at(AT_FDCWD, path, flags, mode); }
int open64(const char *path, int flags, ...) { MODE(flags) return open_at(AT_FDCWD, path, flags, mode); }
int openat(int folder, const char *path, int flags, ...) { MODE(flags) return open_at(folder, path, flags, mode); }
int openat64(int folder, const char *path, int flags, ...) { MODE(flags) return open_at(folder, path, flags, mode); }

int close(int file) {
    if (file >= 0 && file < FILES_MAX) watched[file] = 0;
    return (int)syscall(SYS_close, file);
}

static void wrote(int file, uint64_t at, const struct iovec *parts, int count, ssize_t bytes) {
    int saved = errno;
    if (bytes > 0) record(WRITTEN, inode_of(file), at, parts, count, (size_t)bytes);
    errno = saved;
}

ssize_t pwrite64(int file, const void *bytes, size_t length, off64_t at) {
    if (!is_watched(file)) return syscall(SYS_pwrite64, file, bytes, length, at);
    if (fails()) return -1;
    ssize_t written = syscall(SYS_pwrite64, file, bytes, length, at);
    struct iovec part = {(void *)bytes, length};
    wrote(file, (uint64_t)at, &part, 1, written);
    return written;
}

ssize_t pwrite(int file, const void *bytes, size_t length, off_t at) { return pwrite64(file, bytes, length, at); }

ssize_t writev(int file, const struct iovec *parts, int count) {
    if (!is_watched(file)) return syscall(SYS_writev, file, parts, count);
    if (fails()) return -1;
    struct stat found;
    int appends = (fcntl(file, F_GETFL) & O_APPEND) != 0;
    off_t at = appends && fstat(file, &found) == 0 ? found.st_size : lseek(file, 0, SEEK_CUR);
    ssize_t written = syscall(SYS_writev, file, parts, count);
    wrote(file, (uint64_t)at, parts, count, written);
    return written;
}

ssize_t write(int file, const void *bytes, size_t length) {
    if (!is_watched(file)) return syscall(SYS_write, file, bytes, length);
    struct iovec part = {(void *)bytes, length};
    return writev(file, &part, 1);
}

int ftruncate64(int file, off64_t length) {
    if (is_watched(file) && fails()) return -1;
    int result = (int)syscall(SYS_ftruncate, file, length);
    if (result == 0 && is_watched(file)) record(CUT, inode_of(file), (uint64_t)length, NULL, 0, 0);
    return result;
}

int ftruncate(int file, off_t length) { return ftruncate64(file, length); }

static int sync_with(long call, int file) {
    if (!is_watched(file)) return (int)syscall(call, file);
    if (fails()) return -1;
    uint64_t inode = inode_of(file), number = atomic_fetch_add(&sync_number, 1);
    record(SYNC_BEGINS, inode, number, NULL, 0, 0);
    int result = (int)syscall(call, file);
    if (result == 0) record(SYNCED, inode, number, NULL, 0, 0);
    return result;
}

int fsync(int file) { return sync_with(SYS_fsync, file); }
int fdatasync(int file) { return sync_with(SYS_fdatasync, file); }

static int renamed(int from_folder, const char *from, int to_folder, const char *to, unsigned flags) {
    char from_buffer[PATH_MAX], to_buffer[PATH_MAX];
    const char *old = below_root(from_folder, from, from_buffer), *new = below_root(to_folder, to, to_buffer);
    if (old && new && fails()) return -1;
    int result = (int)syscall(SYS_renameat2, from_folder, from, to_folder, to, flags);
    if (result == 0 && old && new) {
        char both[2 * PATH_MAX];
        size_t length = strlen(old) + 1;
        memcpy(both, old, length);
        memcpy(both + length, new, strlen(new));
        record_text(RENAMED, 0, both, length + strlen(new));
    }
    return result;
}

int rename(const char *from, const char *to) { return renamed(AT_FDCWD, from, AT_FDCWD, to, 0); }
int renameat(int from_folder, const char *from, int to_folder, const char *to) { return renamed(from_folder, from, to_folder, to, 0); }
int renameat2(int from_folder, const char *from, int to_folder, const char *to, unsigned flags) { return renamed(from_folder, from, to_folder, to, flags); }

int unlinkat(int folder, const char *path, int flags) {
    char buffer[PATH_MAX];
    const char *name = below_root(folder, path, buffer);
    if (name && fails()) return -1;
    int result = (int)syscall(SYS_unlinkat, folder, path, flags);
    if (result == 0 && name) record_text(REMOVED, 0, name, strlen(name));
    return result;
}

int unlink(const char *path) { return unlinkat(AT_FDCWD, path, 0); }
int rmdir(const char *path) { return unlinkat(AT_FDCWD, path, AT_REMOVEDIR); }

int mkdirat(int folder, const char *path, mode_t mode) {
    char buffer[PATH_MAX];
    const char *name = below_root(folder, path, buffer);
    if (name && fails()) return -1;
    int result = (int)syscall(SYS_mkdirat, folder, path, mode);
    struct stat found;
    if (result == 0 && name && fstatat(folder, path, &found, 0) == 0)
        record_text(FOLDER, (uint64_t)found.st_ino, name, strlen(name));
    return result;
}

int mkdir(const char *path, mode_t mode) { return mkdirat(AT_FDCWD, path, mode); }
