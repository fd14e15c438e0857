// SPDX-License-Identifier: PSF-2.0
#include "stepper.h"

#include "census.h"        // the heap before and after
#include "core/inject.h"   // points of death
#include "shm/family.h"    // entering it
#include "shm/processes.h" // who is dead
#include "shm/reclaim.h"   // a collection beside it
#include <dlfcn.h>         // names of addresses
#include <errno.h>         // errno
#include <execinfo.h>      // where a survivor hangs
#include <link.h>          // where a library was loaded
#include <signal.h>        // the watchdog
#include <stdarg.h>        // messages
#include <stdio.h>         // the report
#include <stdlib.h>        // memory
#include <string.h>        // names
#include <sys/mman.h>      // memory shared with children
#include <sys/prctl.h>     // helpers die with the driver
#include <sys/time.h>      // setitimer
#include <sys/wait.h>      // helpers
#include <time.h>          // how long it took
#include <unistd.h>        // fork

/* What the caller asked for. */
static struct {
    unsigned visits;   // how often each instruction is tried; 0: always
    unsigned stride;   // every how manieth of these
    double seconds;    // stop after this time; 0: never
    unsigned endings;  // bit set of enum trace_ending
    unsigned failures; // stop after so many
} wish = {.visits = 1, .stride = 1, .endings = 1U << TRACE_KILL, .failures = 5};

struct scene scene;

/* ---- the trace: the instructions that one undisturbed run executes ---- */

struct point {
    uintptr_t at;
    uint32_t visit;  // how often `at` was executed before, in this trace
    uint32_t anchor; // the last point up to this one whose address was not executed before
};

static struct {
    struct point *points;
    size_t count, room;
} trace;

/* ---- addresses seen: how often executed in this trace, how often ended at ---- */

struct seen {
    uintptr_t at;
    uint32_t executed;
    uint32_t tried[TRACE_ENDINGS]; // visits below this were tried
    uint32_t missed;               // replays that went another way
};

static struct {
    struct seen *slots;
    size_t mask, used;
} addresses;

static struct seen *seen_find(uintptr_t at);

static void seen_grow(void)
{
    struct seen *old = addresses.slots;
    size_t count = old == NULL ? 0 : addresses.mask + 1;
    addresses.mask = count == 0 ? 4095 : count * 2 - 1;
    addresses.slots = calloc(addresses.mask + 1, sizeof *addresses.slots);
    if (addresses.slots == NULL)
        abort();
    addresses.used = 0;
    for (size_t i = 0; i < count; i++)
        if (old[i].at != 0)
            *seen_find(old[i].at) = old[i];
    free(old);
}

static struct seen *seen_find(uintptr_t at)
{
    if (addresses.slots == NULL || addresses.used * 2 > addresses.mask)
        seen_grow();
    for (size_t i = (at * UINT64_C(0x9e3779b97f4a7c15)) >> 20;; i++) {
        struct seen *slot = &addresses.slots[i & addresses.mask];
        if (slot->at == at)
            return slot;
        if (slot->at == 0) {
            slot->at = at;
            addresses.used++;
            return slot;
        }
    }
}

/* ---- the report ---- */

static struct {
    const struct operation *operation;
    const char *ending;
    size_t instructions; // of the longest trace
    size_t kills;
    size_t asleep; // of them, while asleep in a system call
    size_t missed; // replays that went another way (and were ended elsewhere)
    size_t traces;
    size_t failures;
    bool complete;
    /* This run: */
    size_t index;
    uintptr_t at;
    bool failed;
} report;

static struct timespec begun;
static double first_trace_seconds; // recording it does not count as time for trying

static double seconds_since_begin(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)(now.tv_sec - begun.tv_sec) + (double)(now.tv_nsec - begun.tv_nsec) / 1e9;
}

static void print_text(const char *text)
{
    for (; *text; text++) {
        if (*text == '"' || *text == '\\')
            putchar('\\');
        putchar((unsigned char)*text < ' ' ? ' ' : *text);
    }
}

/* Function, file and line of an address, by addr2line where it is installed. */
static void print_place(uintptr_t at)
{
    Dl_info info;
    struct link_map *map;
    char command[600];
    char line[300] = "";
    if (!dladdr1((void *)at, &info, (void **)&map, RTLD_DL_LINKMAP)) {
        printf("%#lx", (unsigned long)at);
        return;
    }
    const char *file = map->l_name[0] ? map->l_name : "/proc/self/exe";
    char resolved[400];
    ssize_t length = readlink(file, resolved, sizeof resolved - 1);
    if (length > 0) {
        resolved[length] = 0;
        file = resolved;
    }
    snprintf(command, sizeof command, "addr2line -s -i -f -p -e '%s' %#lx 2>/dev/null", file,
             (unsigned long)(at - map->l_addr));
    FILE *pipe = popen(command, "r");
    while (pipe != NULL && fgets(line, sizeof line, pipe) != NULL)
        print_text(line);
    if (pipe != NULL)
        pclose(pipe);
    if (line[0] == 0 || line[0] == '?')
        print_text(info.dli_sname != NULL ? info.dli_sname : file);
    printf("(%#lx)", (unsigned long)(at - map->l_addr));
}

static void report_failure(const char *what)
{
    printf(
        "{\"failure\": \"%s\", \"ending\": \"%s\", \"instruction\": %zu, \"finished\": %s, \"what\": \"",
        report.operation->name, report.ending, report.index, scene.finished ? "true" : "false");
    print_text(what);
    printf("\", \"where\": \"");
    print_place(report.at);
    printf("\"}\n");
    fflush(stdout);
}

void stepper_fail(const char *file, int line, const char *format, ...)
{
    char what[500];
    va_list arguments;
    if (report.failed)
        return;
    report.failed = true;
    report.failures++;
    const char *slash = strrchr(file, '/');
    int used = snprintf(what, sizeof what, "%s:%d: ", slash ? slash + 1 : file, line);
    va_start(arguments, format);
    vsnprintf(what + used, sizeof what - (size_t)used, format, arguments);
    va_end(arguments);
    report_failure(what);
}

bool stepper_failed(void)
{
    return report.failed;
}

void stepper_abort(const char *file, int line, const char *what, int status)
{
    fprintf(stderr, "stepper: %s: %s:%d: %s gave %d, errno %s\n",
            report.operation ? report.operation->name : "", file, line, what, status,
            strerror(errno));
    exit(2);
}

/* ---- the watchdog: a survivor that hangs is a failure that nothing after can hide ---- */

#define WATCHDOG_SECONDS 10

static void hung(int signal_number)
{
    void *frames[32];
    (void)signal_number;
    dprintf(STDOUT_FILENO,
            "{\"failure\": \"%s\", \"ending\": \"%s\", \"instruction\": %zu, \"finished\": %s, "
            "\"what\": \"a survivor hung for %d s\", \"where\": \"%#lx\"}\n",
            report.operation->name, report.ending, report.index, scene.finished ? "true" : "false",
            WATCHDOG_SECONDS, (unsigned long)report.at);
    int depth = backtrace(frames, 32);
    backtrace_symbols_fd(frames, depth, STDERR_FILENO);
    _exit(3);
}

static void watch(unsigned seconds)
{
    struct itimerval timer = {{0, 0}, {(time_t)seconds, 0}};
    setitimer(ITIMER_REAL, &timer, NULL);
}

/* ---- the dead ---- */

void await_death(uint32_t owner)
{
    for (unsigned round = 0; owner != MP_NOBODY && !mp_owner_dead(owner); round++) {
        if (round == 10000) {
            stepper_fail(__FILE__, __LINE__, "a dead process counts as alive after a second");
            return;
        }
        trace_nap(50);
    }
}

/* ---- helpers ---- */

static pid_t helpers[HELPERS];

void helper_start(unsigned number, void (*body)(void))
{
    mp_assert(number < HELPERS && helpers[number] == 0);
    pid_t pid = fork();
    if (pid < 0)
        stepper_abort(__FILE__, __LINE__, "fork", -1);
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        MUST(mp_family_enter());
        scene.shared->helper[number] = mp_self();
        body();
        _exit(0);
    }
    helpers[number] = pid;
}

void helper_asleep(unsigned number)
{
    for (unsigned round = 0; round < 40000; round++) {
        if (trace_asleep(helpers[number])) {
            /* Twice: a process that is being forked sleeps for other reasons too. */
            trace_nap(200);
            if (trace_asleep(helpers[number]))
                return;
        }
        trace_nap(50);
    }
    stepper_abort(__FILE__, __LINE__, "a helper that should sleep does not", (int)number);
}

void helper_stop(unsigned number)
{
    int status;
    kill(helpers[number], SIGSTOP);
    waitpid(helpers[number], &status, WUNTRACED);
}

void helper_must_die(unsigned number)
{
    int status;
    waitpid(helpers[number], &status, 0);
    helpers[number] = 0;
    if (!WIFSIGNALED(status) || WTERMSIG(status) != SIGKILL)
        stepper_abort(__FILE__, __LINE__, "a helper did not reach its point of death", status);
    await_death(scene.shared->helper[number]);
}

#ifdef MP_TESTING

static const char *point_of_death;

static mp_status die_if_there(const char *name)
{
    if (strcmp(name, point_of_death) == 0)
        kill(getpid(), SIGKILL);
    return MP_OK;
}

void die_at(const char *point)
{
    point_of_death = point;
    mp_inject_hook = die_if_there;
}

#endif

void helper_kill(unsigned number)
{
    if (helpers[number] == 0)
        return;
    kill(helpers[number], SIGKILL);
    waitpid(helpers[number], NULL, 0);
    helpers[number] = 0;
    await_death(scene.shared->helper[number]);
}

void helper_join(unsigned number, unsigned milliseconds)
{
    int status;
    mp_assert(helpers[number] != 0);
    for (unsigned waited = 0; waited <= milliseconds * 20; waited++) {
        if (waitpid(helpers[number], &status, WNOHANG) == helpers[number]) {
            helpers[number] = 0;
            await_death(scene.shared->helper[number]);
            CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0, "helper %u ended with status %#x",
                  number, (unsigned)status);
            return;
        }
        trace_nap(50);
    }
    stepper_fail(__FILE__, __LINE__, "helper %u did not finish within %u ms", number, milliseconds);
    helper_kill(number);
}

static void helpers_end(void)
{
    for (unsigned i = 0; i < HELPERS; i++)
        helper_kill(i);
}

/* ---- one run ---- */

static void prepare_child(void)
{
    if (!report.operation->outside) {
        MUST(mp_family_enter());
        scene.shared->child = mp_self();
    }
    if (report.operation->prepare != NULL)
        report.operation->prepare();
}

static bool wake_child(void)
{
    if (report.operation->wake == NULL)
        return false;
    scene.wakes++;
    return report.operation->wake();
}

static trace_waker *waker(void)
{
    return report.operation->wake != NULL ? wake_child : NULL;
}

static void run_begin(size_t index, uintptr_t at)
{
    watch(WATCHDOG_SECONDS);
    report.failed = false;
    report.index = index;
    report.at = at;
    scene.finished = false;
    scene.wakes = 0;
    scene.run++;
    memset((void *)scene.shared, 0, sizeof *scene.shared);
    if (report.operation->setup != NULL)
        report.operation->setup();
}

/* Collect while the child stands still in the middle of something: what it is about to use must stay.
 * Not if it stands in the allocator: that mutex is not taken from the living. */
static void collect_beside(void)
{
    if (!report.operation->no_heap && mp_load_acquire32(&mp_family_shm()->heap_mutex.word) == 0)
        (void)mp_reclaim_now();
}

static void let_it_finish(pid_t pid)
{
    collect_beside();
    if (report.operation->alive != NULL)
        report.operation->alive();
    if (trace_run(pid, waker()) != TRACE_DONE)
        stepper_fail(__FILE__, __LINE__, "after it went on: %s", trace_lost());
    else
        scene.finished = true;
    trace_bury(pid);
}

/* End the child where it stands, let the survivors go on, and look at what is left. */
static void run_end(pid_t pid)
{
    if (scene.ending == TRACE_STOP)
        let_it_finish(pid);
    else
        trace_end(pid, scene.ending);
    await_death(scene.shared->child);
    if (!report.failed)
        report.operation->survive();
    if (scene.ending == TRACE_ZOMBIE || scene.ending == TRACE_EXEC)
        trace_bury(pid);
    helpers_end();
    if (!report.operation->no_heap)
        census_check();
    watch(0);
}

static void run_lost(pid_t pid)
{
    stepper_fail(__FILE__, __LINE__, "%s", trace_lost());
    trace_bury(pid);
    helpers_end();
    watch(0);
}

/* ---- recording ---- */

static void trace_append(uintptr_t at)
{
    if (trace.count == trace.room) {
        trace.room = trace.room ? trace.room * 2 : 4096;
        trace.points = realloc(trace.points, trace.room * sizeof *trace.points);
        if (trace.points == NULL)
            abort();
    }
    struct seen *seen = seen_find(at);
    uint32_t index = (uint32_t)trace.count;
    uint32_t anchor = seen->executed == 0 ? index
                      : trace.count       ? trace.points[trace.count - 1].anchor
                                          : 0;
    trace.points[trace.count++] = (struct point){at, seen->executed++, anchor};
}

/* Step through one whole run; the child is ended behind its last instruction. */
static bool record(void)
{
    pid_t pid;
    trace.count = 0;
    for (size_t i = 0; addresses.slots != NULL && i <= addresses.mask; i++)
        addresses.slots[i].executed = 0;
    run_begin(0, 0);
    watch(0); // stepping through it all takes its time
    enum trace_stop stop =
        trace_start(report.operation->raw_fork, prepare_child, report.operation->run, &pid);
    for (; stop == TRACE_STOPPED; stop = trace_step(pid, waker()))
        trace_append(trace_pc(pid));
    report.traces++;
    report.index = trace.count;
    if (trace.count > report.instructions)
        report.instructions = trace.count;
    watch(WATCHDOG_SECONDS);
    if (stop == TRACE_LOST) {
        run_lost(pid);
        return false;
    }
    scene.finished = true;
    run_end(pid);
    return true;
}

/* ---- replaying ---- */

/* Bring a fresh child in front of point `index` of the trace. */
static enum trace_stop replay(size_t index, pid_t *pid)
{
    enum trace_stop stop =
        trace_start(report.operation->raw_fork, prepare_child, report.operation->run, pid);
    size_t anchor = trace.points[index].anchor;
    if (stop == TRACE_STOPPED)
        stop = trace_run_to(*pid, trace.points[anchor].at, waker());
    for (size_t i = anchor; i < index && stop == TRACE_STOPPED; i++)
        stop = trace_step(*pid, waker());
    return stop;
}

/* False when the child went another way than the trace. It is ended where it is all the same. */
static bool end_at(size_t index)
{
    pid_t pid;
    run_begin(index, trace.points[index].at);
    enum trace_stop stop = replay(index, &pid);
    if (stop == TRACE_LOST) {
        run_lost(pid);
        return true;
    }
    scene.finished = stop == TRACE_DONE;
    report.at = trace_pc(pid);
    bool there = report.at == trace.points[index].at;
    report.kills++;
    run_end(pid);
    return there;
}

/* In front of a system call in which the operation sleeps: end it once more, while it sleeps. */
static void end_asleep_at(size_t index)
{
    pid_t pid;
    run_begin(index, trace.points[index].at);
    enum trace_stop stop = replay(index, &pid);
    if (stop == TRACE_LOST) {
        run_lost(pid);
        return;
    }
    scene.finished = stop == TRACE_DONE;
    if (stop == TRACE_STOPPED && trace_fall_asleep(pid)) {
        report.kills++;
        report.asleep++;
    }
    run_end(pid);
}

static bool ours(uintptr_t at)
{
    extern const char __executable_start, etext;
    return at >= (uintptr_t)&__executable_start && at < (uintptr_t)&etext;
}

/* Of the C library each instruction is tried once; of ours as often as asked for. */
static bool wanted(const struct point *point, const struct seen *seen)
{
    uint32_t most = wish.visits == 0 ? UINT32_MAX : ours(point->at) ? wish.visits : 1;
    return point->visit < most && seen->tried[scene.ending] <= point->visit && seen->missed < 6;
}

static bool time_is_up(void)
{
    return (wish.seconds > 0 && seconds_since_begin() - first_trace_seconds > wish.seconds) ||
           report.failures >= wish.failures;
}

#define MISSES_PER_TRACE 10
#define TRACES 60

/* One pass over the trace. True: every wanted point was tried. */
static bool sweep(void)
{
    size_t misses = 0;
    size_t turn = 0;
    for (size_t i = 0; i < trace.count; i++) {
        struct seen *seen = seen_find(trace.points[i].at);
        if (!wanted(&trace.points[i], seen) || turn++ % wish.stride != 0)
            continue;
        if (time_is_up())
            return false;
        if (end_at(i)) {
            seen->tried[scene.ending] = trace.points[i].visit + 1;
            if ((scene.ending == TRACE_KILL || scene.ending == TRACE_ZOMBIE) &&
                report.operation->wake != NULL && trace_is_system_call(trace.points[i].at))
                end_asleep_at(i);
        } else {
            seen->missed++;
            report.missed++;
            if (++misses == MISSES_PER_TRACE)
                return false;
        }
    }
    return true;
}

/* What happens differs from run to run (who was first, what was reused): where replays go another
 * way too often, another trace is recorded and what it adds is tried too. */
static void step_operation(void)
{
    do {
        if (!record())
            return;
        if (report.traces == 1)
            first_trace_seconds = seconds_since_begin();
        report.complete = sweep();
    } while (!report.complete && !time_is_up() && report.traces < TRACES);
}

/* ---- the command ---- */

static void forget(void)
{
    free(addresses.slots);
    memset(&addresses, 0, sizeof addresses);
    memset(&report, 0, sizeof report);
}

static void print_report(void)
{
    size_t distinct = 0, tried = 0;
    for (size_t i = 0; i <= addresses.mask && addresses.slots != NULL; i++) {
        /* Of the last trace: what a process does only once is in the first one alone. */
        if (addresses.slots[i].executed == 0)
            continue;
        distinct++;
        tried += addresses.slots[i].tried[scene.ending] != 0;
    }
    printf("{\"operation\": \"%s\", \"ending\": \"%s\", \"instructions\": %zu, \"addresses\": %zu, "
           "\"addresses_tried\": %zu, \"kills\": %zu, \"asleep\": %zu, \"missed\": %zu, "
           "\"traces\": %zu, \"complete\": %s, \"failures\": %zu, \"seconds\": %.2f}\n",
           report.operation->name, report.ending, report.instructions, distinct, tried,
           report.kills, report.asleep, report.missed, report.traces,
           report.complete ? "true" : "false", report.failures, seconds_since_begin());
    fflush(stdout);
}

static size_t step_in_every_way(const struct operation *operation)
{
    size_t failures = 0;
    for (int ending = 0; ending < TRACE_ENDINGS; ending++) {
        if (!(wish.endings & 1U << ending))
            continue;
        forget();
        clock_gettime(CLOCK_MONOTONIC, &begun);
        report.operation = operation;
        report.ending = trace_ending_names[ending];
        scene.ending = (enum trace_ending)ending;
        if (!operation->no_heap)
            census_begin();
        step_operation();
        print_report();
        failures += report.failures;
    }
    return failures;
}

static const struct operation *find(const char *name)
{
    for (size_t t = 0; operation_tables[t] != NULL; t++)
        for (const struct operation *o = operation_tables[t]; o->name != NULL; o++)
            if (strcmp(o->name, name) == 0)
                return o;
    return NULL;
}

static void list(void)
{
    for (size_t t = 0; operation_tables[t] != NULL; t++)
        for (const struct operation *o = operation_tables[t]; o->name != NULL; o++)
            printf("%s%s\n", o->name, o->fault ? " (planted fault)" : "");
}

static void usage(void)
{
    fprintf(stderr,
            "usage: stepper [options] operation ...\n"
            "  --list             names of the operations\n"
            "  --visits N         end it at the first N executions of each instruction; 0: at all\n"
            "  --stride N         only every Nth of these\n"
            "  --seconds S        stop each operation after this time (reported as not complete)\n"
            "  --endings a,b      kill, zombie, exec, stop; kill if not given\n"
            "  --failures N       stop after so many failures\n");
    exit(2);
}

static void wish_endings(char *text)
{
    wish.endings = 0;
    for (char *name = strtok(text, ","); name != NULL; name = strtok(NULL, ",")) {
        int i = 0;
        while (i < TRACE_ENDINGS && strcmp(name, trace_ending_names[i]) != 0)
            i++;
        if (i == TRACE_ENDINGS)
            usage();
        wish.endings |= 1U << i;
    }
}

/* One option with its value. */
static void wish_option(const char *name, char *value)
{
    if (value == NULL)
        usage();
    if (strcmp(name, "--visits") == 0)
        wish.visits = (unsigned)strtoul(value, NULL, 10);
    else if (strcmp(name, "--stride") == 0)
        wish.stride = (unsigned)strtoul(value, NULL, 10);
    else if (strcmp(name, "--seconds") == 0)
        wish.seconds = strtod(value, NULL);
    else if (strcmp(name, "--failures") == 0)
        wish.failures = (unsigned)strtoul(value, NULL, 10);
    else if (strcmp(name, "--endings") == 0)
        wish_endings(value);
    else
        usage();
    if (wish.stride == 0 || wish.failures == 0)
        usage();
}

static void prepare_driver(void)
{
    struct sigaction action = {.sa_handler = hung};
    void *memory = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    void *frame[1];
    if (memory == MAP_FAILED)
        stepper_abort(__FILE__, __LINE__, "mmap", -1);
    scene.shared = memory;
    backtrace(frame, 1); // loads its library now, not in the signal handler
    sigaction(SIGALRM, &action, NULL);
    MUST(mp_family_start());
    MUST(mp_family_enter());
    operations_init();
}

int main(int count, char **arguments)
{
    size_t failures = 0;
    int i = 1;
    for (; i < count && arguments[i][0] == '-'; i += 2) {
        if (strcmp(arguments[i], "--list") == 0)
            return list(), 0;
        wish_option(arguments[i], i + 1 < count ? arguments[i + 1] : NULL);
    }
    if (i >= count)
        usage();
    prepare_driver();
    for (; i < count; i++) {
        const struct operation *operation = find(arguments[i]);
        if (operation == NULL)
            usage();
        failures += step_in_every_way(operation);
    }
    return failures != 0;
}
