/* Preloaded into the gateway: its writes and syncs below the directory FAULT_UNDER fail as the first word of the file FAULT says.
   eio: writes fail; sync: syncs fail; full: the disk is full; short: one write writes half, and then the disk is full;
   rename: renames fail, as between file systems; slow: each sync takes 300 ms; hang: syncs wait until the file is gone. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

static int is_path_below(const char *path) {
    const char *under = getenv("FAULT_UNDER");
    return under && strncmp(path, under, strlen(under)) == 0;
}

static int is_below(int fd) {
    char link[64], path[4096];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0) return 0;
    path[length] = 0;
    return is_path_below(path);
}

static int says(const char *fault) {
    char said[16] = {0};
    const char *file = getenv("FAULT");
    int saved = errno, control = file ? open(file, O_RDONLY | O_CLOEXEC) : -1;
    if (control < 0) { errno = saved; return 0; }
    static ssize_t (*real)(int, void *, size_t);
    if (!real) real = dlsym(RTLD_NEXT, "read");
    ssize_t length = real(control, said, sizeof said - 1);
    close(control);
    errno = saved;
    return length > 0 && strcmp(said, fault) == 0;
}

static int is(int fd, const char *fault) { return says(fault) && is_below(fd); }

/* How much may be written: all, or nothing with an error, or a part. */
static ssize_t allowed(int fd, size_t count) {
    static int was_short;
    if (is(fd, "eio")) { errno = EIO; return -1; }
    if (is(fd, "full")) { errno = ENOSPC; return -1; }
    if (is(fd, "short")) {
        if (!was_short && count > 1) { was_short = 1; return count / 2; }
        errno = ENOSPC;
        return -1;
    }
    return count;
}

ssize_t write(int fd, const void *bytes, size_t count) {
    static ssize_t (*real)(int, const void *, size_t);
    if (!real) real = dlsym(RTLD_NEXT, "write");
    ssize_t may = allowed(fd, count);
    return may < 0 ? may : real(fd, bytes, may);
}

ssize_t pwrite64(int fd, const void *bytes, size_t count, off64_t at) {
    static ssize_t (*real)(int, const void *, size_t, off64_t);
    if (!real) real = dlsym(RTLD_NEXT, "pwrite64");
    ssize_t may = allowed(fd, count);
    return may < 0 ? may : real(fd, bytes, may, at);
}

ssize_t copy_file_range(int from, off64_t *from_at, int to, off64_t *to_at, size_t count, unsigned flags) {
    static ssize_t (*real)(int, off64_t *, int, off64_t *, size_t, unsigned);
    if (!real) real = dlsym(RTLD_NEXT, "copy_file_range");
    ssize_t may = allowed(to, count);
    return may < 0 ? may : real(from, from_at, to, to_at, may, flags);
}

int rename(const char *from, const char *to) {
    if (says("rename") && is_path_below(from)) { errno = EXDEV; return -1; }
    return ((int (*)(const char *, const char *))dlsym(RTLD_NEXT, "rename"))(from, to);
}

static int before_sync(int fd) {
    if (is(fd, "sync")) { errno = EIO; return -1; }
    if (is(fd, "slow")) usleep(300000);
    while (is(fd, "hang")) usleep(20000);
    return 0;
}

int fdatasync(int fd) { return before_sync(fd) ? -1 : ((int (*)(int))dlsym(RTLD_NEXT, "fdatasync"))(fd); }
int fsync(int fd) { return before_sync(fd) ? -1 : ((int (*)(int))dlsym(RTLD_NEXT, "fsync"))(fd); }
