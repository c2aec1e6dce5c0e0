/* Notes after each fsync how long the file was before it: so much of it would survive a power cut. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

static void note(int fd, long long size) {
  char link[64], path[4096], line[4200];
  const char *into = getenv("SYNCED");
  snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  ssize_t length = readlink(link, path, sizeof path - 1);
  if (!into || length < 0) return;
  path[length] = 0;
  int out = open(into, O_WRONLY | O_APPEND | O_CREAT, 0600);
  if (out < 0) return;
  int many = snprintf(line, sizeof line, "%lld %s\n", size, path);
  if (write(out, line, many) < 0) perror("shim");
  close(out);
}

static int synced(const char *name, int fd) {
  struct stat facts;
  int (*real)(int) = dlsym(RTLD_NEXT, name);
  long long size = fstat(fd, &facts) == 0 && S_ISREG(facts.st_mode) ? facts.st_size : -1;
  int result = real(fd);
  if (result == 0 && size >= 0) note(fd, size);
  return result;
}

int fsync(int fd) { return synced("fsync", fd); }
int fdatasync(int fd) { return synced("fdatasync", fd); }
