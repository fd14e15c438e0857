// SPDX-License-Identifier: PSF-2.0
/* What the C tests share: a check that always runs, children, and a table of tests run by name. */
#ifndef TESTS_NATIVE_CHECK_H
#define TESTS_NATIVE_CHECK_H

#include <signal.h>   // kill
#include <stdio.h>    // printf
#include <stdlib.h>   // abort
#include <string.h>   // strcmp
#include <sys/wait.h> // waitpid
#include <unistd.h>   // fork

#define CHECK(condition)                                                                           \
 do {                                                                                              \
  if (!(condition)) {                                                                              \
   fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition);                                 \
   fflush(stderr);                                                                                 \
   _exit(1);                                                                                       \
  }                                                                                                \
 } while (0)

struct test {
    const char *name;
    void (*run)(void);
};

/* Fork; the child runs `body` and exits 0, or 1 where a check failed. */
static inline pid_t start(void (*body)(void *), void *argument)
{
    pid_t pid = fork();
    CHECK(pid >= 0);
    if (pid == 0) {
        body(argument);
        _exit(0);
    }
    return pid;
}

static inline int reap(pid_t pid)
{
    int status;
    CHECK(waitpid(pid, &status, 0) == pid);
    return status;
}

static inline void reap_clean(pid_t pid)
{
    int status = reap(pid);
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

/* `program` lists the tests, `program NAME` runs one. */
static inline int run_tests(const struct test *tests, int argc, char **argv)
{
    for (; tests->name != NULL; tests++) {
        if (argc < 2) {
            puts(tests->name);
        } else if (strcmp(argv[1], tests->name) == 0) {
            tests->run();
            return 0;
        }
    }
    return argc < 2 ? 0 : 2;
}

#endif
