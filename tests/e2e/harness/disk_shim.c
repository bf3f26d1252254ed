/* Stands between the gateway and the disk (LD_PRELOAD), see disk.py. Owns what fdatasync and fsync do in a test:
 *
 *   $DISK_SHIM/hold   exists: a sync does not return until the file is gone
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

static int synced(const char *symbol, int fd)
{
    char path[4096], line[64];
    struct stat before;
    int (*real)(int) = (int (*)(int))dlsym(RTLD_NEXT, symbol);
    /* What is written during the sync is not covered by it, so the size is taken first. */
    int known = fstat(fd, &before) == 0 && S_ISREG(before.st_mode);

    while (access(place("hold", path, sizeof path), F_OK) == 0)
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
