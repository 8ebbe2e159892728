/* Loaded in front of a program (LD_PRELOAD): host names of the file $NAMES have the addresses written there, one name a
   line: "crm.test 127.0.0.1 127.0.0.2". A name without any does not exist; one whose address is "silent" has no answer
   until the file says otherwise. All other names are as they were. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef int (*Look)(const char *, const char *, const struct addrinfo *, struct addrinfo **);

/* The addresses of the name behind it, in `line`; NULL when the file does not have it. */
static char *addresses_of(const char *name, char *line, int room) {
  FILE *file = fopen(getenv("NAMES"), "r");
  char *found = NULL;
  const size_t length = strlen(name);
  while (file != NULL && found == NULL && fgets(line, room, file) != NULL)
    if (strncmp(line, name, length) == 0 && strchr(" \n", line[length]) != NULL) found = line + length;
  if (file != NULL) fclose(file);
  return found;
}

int getaddrinfo(const char *name, const char *service, const struct addrinfo *hints, struct addrinfo **out) {
  const Look real = (Look)dlsym(RTLD_NEXT, "getaddrinfo");
  char line[1000];
  char *addresses = name == NULL ? NULL : addresses_of(name, line, sizeof line);
  if (addresses == NULL) return real(name, service, hints, out);
  while (addresses != NULL && strstr(addresses, "silent") != NULL) {
    usleep(10000);
    addresses = addresses_of(name, line, sizeof line);
  }
  if (addresses == NULL) return EAI_NONAME;
  struct addrinfo *first = NULL, **last = &first;
  char *place = NULL;
  for (char *at = strtok_r(addresses, " \n", &place); at != NULL; at = strtok_r(NULL, " \n", &place)) {
    if (real(at, service, hints, last) != 0) continue;
    while (*last != NULL) last = &(*last)->ai_next;
  }
  *out = first;
  return first == NULL ? EAI_NONAME : 0;
}
