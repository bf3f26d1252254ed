/* Stands between the gateway and the disk (LD_PRELOAD), see disk.py. Owns what fdatasync and fsync do in a test:
 *
 *   $DISK_SHIM/hold   exists: a sync does not return until the file is gone; if the file names a part of a path, only
 *                     syncs of files whose path has it
 *   $DISK_SHIM/fail   exists: a sync fails with EIO
 *   $DISK_SHIM/synced gets a line "INODE SIZE" for every file whose first SIZE bytes were synced
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static const char *place(const char *name, char *path, size_t size)
{
    const char *folder = getenv("DISK_SHIM");
    snprintf(path, size, "%s/%s", folder ? folder : "/nonexistent", name);
    return path;
}

/* Whether a sync of this file is held. */
static int held(int fd)
{
    char path[4096], part[256], link[64];
    int hold = open(place("hold", path, sizeof path), O_RDONLY | O_CLOEXEC);
    if (hold < 0)
        return 0;
    ssize_t length = read(hold, part, sizeof part - 1);
    close(hold);
    if (length <= 0)
        return 1;
    part[length] = 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    length = readlink(link, path, sizeof path - 1);
    if (length < 0)
        return 1;
    path[length] = 0;
    return strstr(path, part) != NULL;
}

static int synced(const char *symbol, int fd)
{
    char path[4096], line[64];
    struct stat before;
    int (*real)(int) = (int (*)(int))dlsym(RTLD_NEXT, symbol);
    /* What is written during the sync is not covered by it, so the size is taken first. */
    int known = fstat(fd, &before) == 0 && S_ISREG(before.st_mode);

    while (held(fd))
        usleep(2000);
    if (access(place("fail", path, sizeof path), F_OK) == 0) {
        errno = EIO;
        return -1;
    }
    int result = real(fd);
    if (result == 0 && known) {
        int log = open(place("synced", path, sizeof path), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
        int length = snprintf(line, sizeof line, "%lu %ld\n", (unsigned long)before.st_ino, (long)before.st_size);
        if (log >= 0) {
            if (write(log, line, length) != length)
                abort();
            close(log);
        }
    }
    return result;
}

int fdatasync(int fd) { return synced("fdatasync", fd); }
int fsync(int fd) { return synced("fsync", fd); }
