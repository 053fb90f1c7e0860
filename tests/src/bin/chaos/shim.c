/* Loaded into a server with LD_PRELOAD: lies about the time of day, and makes fsync slow or fail.
 *
 * Steered through a file of three numbers of 64 bits, whose path is in CHAOS_CONTROL and which is mapped:
 *   0  nanoseconds that are added to CLOCK_REALTIME
 *   1  microseconds that each fsync or fdatasync takes longer
 *   2  errno with which each fsync or fdatasync fails; 0 for none
 *
 * The monotonic clock stays as it is: no machine's jumps.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static volatile int64_t *control;

__attribute__((constructor)) static void attach(void) {
    const char *path = getenv("CHAOS_CONTROL");
    if (!path) return;
    int file = open(path, O_RDONLY | O_CLOEXEC);
    if (file < 0) _exit(119);
    void *map = mmap(NULL, 3 * sizeof(int64_t), PROT_READ, MAP_SHARED, file, 0);
    close(file);
    if (map == MAP_FAILED) _exit(119);
    control = map;
}

int clock_gettime(clockid_t clock, struct timespec *time) {
    static int (*real)(clockid_t, struct timespec *);
    if (!real) real = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
    int result = real ? real(clock, time) : (int)syscall(SYS_clock_gettime, clock, time);
    if (result == 0 && control && clock == CLOCK_REALTIME) {
        const int64_t second = 1000000000;
        int64_t all = (int64_t)time->tv_sec * second + time->tv_nsec + control[0];
        time->tv_sec = all / second;
        time->tv_nsec = all % second;
    }
    return result;
}

/* 0 if the real call shall be made. */
static int disturb(void) {
    if (!control) return 0;
    int64_t slower = control[1];
    if (slower > 0) {
        struct timespec pause = {slower / 1000000, (slower % 1000000) * 1000};
        nanosleep(&pause, NULL);
    }
    int64_t error = control[2];
    if (error == 0) return 0;
    errno = (int)error;
    return -1;
}

int fsync(int file) { return disturb() ? -1 : (int)syscall(SYS_fsync, file); }

int fdatasync(int file) { return disturb() ? -1 : (int)syscall(SYS_fdatasync, file); }
