/*
 * A load generator: N keep-alive connections, each sending its next request as soon as the answer
 * to the last is complete (a closed loop), from one process with one epoll loop.
 *
 *     load --port PORT --path PATH --connections N --seconds S [options]
 *
 *   --body TEXT | --body-file FILE   the request body (POST); without one it is a GET
 *   --header 'name: value'           sent with every request; may be repeated
 *   --traceparent                    a fresh, sampled traceparent with every request
 *   --warmup S                       load before the measured time (default 0)
 *   --stagger S                      spreads the connections' first requests over this time
 *   --drain S                        waits this long for the last answers (default 30)
 *   --stream                         answers are event streams: count events, time the first
 *   --expect TEXT                    must occur in the last 2 KiB of every answer
 *   --min-bytes N --max-bytes N      limits of an answer's body
 *   --min-events N --max-events N    limits of a stream's events, [DONE] not counted
 *
 * Every answer is checked: status 200, framing, size, the expected text, and for streams the count
 * of events, no error event, and [DONE] at the end. Prints one line of JSON. Rates and latencies
 * are of the measured time; the *_total counters and `errors` are of the whole run, warm-up and
 * drain included.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { HEAD_MAX = 16384, TAIL_MAX = 2048, READ_MAX = 1 << 18, REFUSALS_MAX = 1000 };

enum state { IDLE, HEAD, LENGTH, CHUNK_SIZE, CHUNK_DATA, CHUNK_END, TRAILER };

struct conn {
    int fd;
    enum state state;
    bool waiting;             /* a request is out */
    bool close, failed, wrote_data, saw_blank;
    int64_t start_at;         /* when a staggered connection sends first; 0: started */
    int64_t sent_at, first_at;
    uint64_t left;            /* bytes left of the body, or of the chunk */
    uint64_t bytes, events, line;
    size_t size_digits;
    size_t head_len, tail_len;
    char head[HEAD_MAX], tail[TAIL_MAX];
};

/* A list of durations, in nanoseconds. */
struct times {
    uint32_t *micro_x10;      /* tenths of a microsecond: fits 7 minutes */
    size_t len, room;
};

static struct {
    int port, connections;
    const char *path, *expect;
    char *body;
    size_t body_len;
    char headers[4096];
    double seconds, warmup, stagger, drain;
    bool stream, traceparent;
    uint64_t min_bytes, max_bytes, min_events, max_events;
} opt = {.path = "/", .connections = 1, .seconds = 1, .drain = 30, .max_bytes = UINT64_MAX,
         .max_events = UINT64_MAX};

static int epoll;
static char *request;
static size_t request_len, trace_at;
static uint64_t random_state = 88172645463325252ULL;
static int64_t begin, measure_from, measure_to;
static bool sending = true;
static int waiting;
static struct times latency, first;
static uint64_t done, done_total, sent_total, events_in, events_total, bytes_total, errors, reconnects;
static char first_error[256];

static int64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static void record(struct times *t, int64_t ns) {
    if (t->len == t->room) {
        t->room = t->room ? 2 * t->room : 65536;
        t->micro_x10 = realloc(t->micro_x10, t->room * sizeof *t->micro_x10);
        if (!t->micro_x10) abort();
    }
    t->micro_x10[t->len++] = ns / 100 > UINT32_MAX ? UINT32_MAX : (uint32_t)(ns / 100);
}

static int by_size(const void *a, const void *b) {
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

static void print_times(const char *name, struct times *t) {
    static const struct { const char *name; double share; } points[] = {
        {"p50", .50}, {"p90", .90}, {"p99", .99}, {"max", 1}};
    qsort(t->micro_x10, t->len, sizeof *t->micro_x10, by_size);
    for (int i = 0; i < 4; i++) {
        size_t at = (size_t)(points[i].share * (double)t->len);
        if (at >= t->len) at = t->len - 1;
        printf(",\"%s_%s_us\":", name, points[i].name);
        if (t->len) printf("%.1f", t->micro_x10[at] / 10.0);
        else printf("null");
    }
}

/* ------------------------------------------------------------------ sending */

static void build_request(void) {
    const char *placeholder = "traceparent: 00-00000000000000000000000000000000-0000000000000000-01";
    size_t room = opt.body_len + strlen(opt.path) + sizeof opt.headers + 512;
    request = malloc(room);
    if (!request) abort();
    int n = snprintf(request, room, "%s %s HTTP/1.1\r\nhost: 127.0.0.1:%d\r\naccept: */*\r\n%s%s%s",
                     opt.body ? "POST" : "GET", opt.path, opt.port, opt.headers,
                     opt.traceparent ? placeholder : "", opt.traceparent ? "\r\n" : "");
    if (opt.body)
        n += snprintf(request + n, room - (size_t)n,
                      "content-type: application/json\r\ncontent-length: %zu\r\n", opt.body_len);
    n += snprintf(request + n, room - (size_t)n, "\r\n");
    if (opt.body) memcpy(request + n, opt.body, opt.body_len);
    request_len = (size_t)n + opt.body_len;
    if (opt.traceparent) trace_at = (size_t)(strstr(request, "traceparent: 00-") - request) + 16;
}

static void new_trace(void) {
    for (size_t i = 0; i < 49; i++) {
        if (i == 32) continue; /* the dash between trace id and span id */
        if (i % 16 == 0 || i == 33) {
            random_state ^= random_state << 13;
            random_state ^= random_state >> 7;
            random_state ^= random_state << 17;
        }
        request[trace_at + i] = "0123456789abcdef"[random_state >> (4 * (i % 16)) & 15];
    }
    request[trace_at] = request[trace_at + 33] = 'a'; /* an id of zeros only is not valid */
}

static void fail(struct conn *c, const char *why) {
    errors++;
    c->failed = true;
    if (!first_error[0]) {
        snprintf(first_error, sizeof first_error, "%s", why);
        if (c->head_len) {
            size_t at = strlen(first_error);
            snprintf(first_error + at, sizeof first_error - at, ": %.60s", c->head);
        }
    }
}

static void connect_one(struct conn *c) {
    static int refused;
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons((uint16_t)opt.port),
                            .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int one = 1;
    c->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (connect(c->fd, (struct sockaddr *)&a, sizeof a)) {
        close(c->fd);
        c->fd = -1;
        fail(c, "connection refused");
        if (++refused > REFUSALS_MAX) {
            fprintf(stderr, "load: nothing answers on port %d\n", opt.port);
            exit(3);
        }
        return;
    }
    refused = 0;
    fcntl(c->fd, F_SETFL, O_NONBLOCK);
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    struct epoll_event e = {.events = EPOLLIN, .data.ptr = c};
    epoll_ctl(epoll, EPOLL_CTL_ADD, c->fd, &e);
}

static void disconnect(struct conn *c) {
    if (c->fd >= 0) close(c->fd);
    c->fd = -1;
    c->state = IDLE;
    waiting -= c->waiting;
    c->waiting = false;
}

static void send_request(struct conn *c) {
    if (c->fd < 0) {
        connect_one(c);
        if (c->fd < 0) return;
    }
    if (opt.traceparent) new_trace();
    c->state = HEAD;
    c->head_len = c->tail_len = 0;
    c->bytes = c->events = c->line = 0;
    c->close = c->failed = c->wrote_data = c->saw_blank = false;
    c->first_at = 0;
    c->sent_at = now_ns();
    /* Requests are far smaller than a socket's buffer, which is empty here: no partial writes. */
    if (send(c->fd, request, request_len, MSG_NOSIGNAL) != (ssize_t)request_len) {
        fail(c, "the request could not be written");
        disconnect(c);
        return;
    }
    c->waiting = true;
    waiting++;
    sent_total++;
}

/* ------------------------------------------------------------------ receiving */

static void keep_tail(struct conn *c, const char *at, size_t n) {
    size_t room = opt.stream ? 64 : TAIL_MAX;
    if (n >= room) {
        memcpy(c->tail, at + n - room, room);
        c->tail_len = room;
        return;
    }
    if (c->tail_len + n > room) {
        size_t drop = c->tail_len + n - room;
        memmove(c->tail, c->tail + drop, c->tail_len - drop);
        c->tail_len -= drop;
    }
    memcpy(c->tail + c->tail_len, at, n);
    c->tail_len += n;
}

static void on_event(struct conn *c, int64_t now) {
    if (!c->first_at) c->first_at = now;
    c->events++;
    if (now >= measure_from && now < measure_to) events_in++;
}

/* Counts events: a blank line after at least one line of data ends one. */
static void scan_events(struct conn *c, const char *at, size_t n, int64_t now) {
    static const char bad[] = "data: {\"error\"";
    const char *end = at + n;
    while (at < end) {
        const char *eol = memchr(at, '\n', (size_t)(end - at));
        if (!c->line && (size_t)(end - at) > sizeof bad && !memcmp(at, bad, sizeof bad - 1) &&
            !c->failed)
            fail(c, "an error event in the stream");
        if (!eol) {
            c->line += (uint64_t)(end - at);
            return;
        }
        if (c->line + (uint64_t)(eol - at)) {
            c->wrote_data = true;
        } else if (c->wrote_data) {
            c->wrote_data = false;
            on_event(c, now);
        }
        c->line = 0;
        at = eol + 1;
    }
}

static void take_body(struct conn *c, const char *at, size_t n, int64_t now) {
    c->bytes += n;
    keep_tail(c, at, n);
    if (opt.stream) scan_events(c, at, n, now);
}

static void check(struct conn *c) {
    if (c->failed) return;
    if (strncmp(c->head, "HTTP/1.1 200 ", 13)) {
        fail(c, "not 200");
    } else if (c->bytes < opt.min_bytes || c->bytes > opt.max_bytes) {
        fail(c, "a body of unexpected size");
    } else if (opt.expect && !memmem(c->tail, c->tail_len, opt.expect, strlen(opt.expect))) {
        fail(c, "the expected text is missing");
    } else if (opt.stream) {
        if (c->tail_len < 14 || memcmp(c->tail + c->tail_len - 14, "data: [DONE]\n\n", 14))
            fail(c, "a stream without [DONE]");
        else if (c->events - 1 < opt.min_events || c->events - 1 > opt.max_events)
            fail(c, "a stream with an unexpected number of events");
    }
}

static void finish(struct conn *c, int64_t now) {
    check(c);
    waiting--;
    c->waiting = false;
    c->state = IDLE;
    if (!c->failed) {
        done_total++;
        bytes_total += c->bytes;
        if (opt.stream) {
            events_total += c->events - 1;
            events_in -= now >= measure_from && now < measure_to && events_in; /* [DONE] */
        }
        if (now >= measure_from && now < measure_to) {
            done++;
            record(&latency, now - c->sent_at);
        }
        if (c->first_at && c->sent_at >= measure_from && c->sent_at < measure_to)
            record(&first, c->first_at - c->sent_at);
    }
    if (c->close) {
        reconnects++;
        disconnect(c);
    }
    if (sending) send_request(c);
}

/* Reads the head: the framing of the body that follows. */
static void take_head(struct conn *c) {
    bool chunked = false, length = false;
    c->left = 0;
    c->head[c->head_len] = 0;
    for (char *line = strchr(c->head, '\n'); line && line[1] != '\r'; line = strchr(line, '\n')) {
        line++;
        switch (*line | 32) {
        case 'c':
            if (!strncasecmp(line, "content-length:", 15)) {
                c->left = strtoull(line + 15, NULL, 10);
                length = true;
            } else if (!strncasecmp(line, "connection: close", 17)) {
                c->close = true;
            }
            break;
        case 't':
            if (!strncasecmp(line, "transfer-encoding: chunked", 26)) chunked = true;
            break;
        }
    }
    if (!chunked && !length) {
        fail(c, "an answer without framing");
        c->close = true;
    }
    c->state = chunked ? CHUNK_SIZE : LENGTH;
    c->left = chunked ? 0 : c->left;
    c->size_digits = 0;
}

static void feed(struct conn *c, const char *at, size_t n) {
    const char *end = at + n;
    int64_t now = now_ns();
    while (c->waiting && (at < end || (c->state == LENGTH && !c->left))) {
        size_t room = (size_t)(end - at);
        switch (c->state) {
        case IDLE:
            return;
        case HEAD: {
            size_t take = room < HEAD_MAX - 1 - c->head_len ? room : HEAD_MAX - 1 - c->head_len;
            size_t from = c->head_len > 3 ? c->head_len - 3 : 0;
            memcpy(c->head + c->head_len, at, take);
            char *stop = memmem(c->head + from, c->head_len + take - from, "\r\n\r\n", 4);
            if (!stop) {
                c->head_len += take;
                at += take;
                if (c->head_len == HEAD_MAX - 1) {
                    fail(c, "a head that does not end");
                    disconnect(c);
                }
                break;
            }
            size_t whole = (size_t)(stop - c->head) + 4;
            at += whole - c->head_len;
            c->head_len = whole;
            take_head(c);
            break;
        }
        case LENGTH: {
            size_t take = room < c->left ? room : (size_t)c->left;
            take_body(c, at, take, now);
            c->left -= take;
            at += take;
            if (!c->left) finish(c, now);
            break;
        }
        case CHUNK_SIZE:
            if (*at == '\n') {
                c->state = c->left ? CHUNK_DATA : TRAILER;
                c->saw_blank = true;
            } else if (isxdigit((unsigned char)*at)) {
                int digit = isdigit((unsigned char)*at) ? *at - '0' : (*at | 32) - 'a' + 10;
                c->left = c->left * 16 + (uint64_t)digit;
            } else if (*at != '\r') {
                fail(c, "a broken chunk size");
                disconnect(c);
            }
            at++;
            break;
        case CHUNK_DATA: {
            size_t take = room < c->left ? room : (size_t)c->left;
            take_body(c, at, take, now);
            c->left -= take;
            at += take;
            if (!c->left) c->state = CHUNK_END;
            break;
        }
        case CHUNK_END:
            if (*at++ == '\n') c->state = CHUNK_SIZE;
            break;
        case TRAILER:
            if (*at == '\n') {
                at++;
                if (c->saw_blank) {
                    finish(c, now);
                    break;
                }
                c->saw_blank = true;
            } else if (*at++ != '\r') {
                c->saw_blank = false;
            }
            break;
        }
    }
}

static void on_readable(struct conn *c) {
    static char buffer[READ_MAX];
    ssize_t n = recv(c->fd, buffer, sizeof buffer, 0);
    if (n > 0) {
        feed(c, buffer, (size_t)n);
        return;
    }
    if (n < 0 && (errno == EAGAIN || errno == EINTR)) return;
    bool lost = c->waiting;
    if (lost) fail(c, "the connection closed before the answer was complete");
    disconnect(c);
    reconnects++;
    if (sending) send_request(c);
}

/* ------------------------------------------------------------------ running */

static void usage(const char *what) {
    fprintf(stderr, "load: %s (the options are at the top of load.c)\n", what);
    exit(2);
}

static char *read_file(const char *name, size_t *len) {
    FILE *f = fopen(name, "rb");
    if (!f) usage(name);
    char *at = malloc(1 << 22);
    if (!at) abort();
    *len = fread(at, 1, 1 << 22, f);
    fclose(f);
    return at;
}

static void parse(int argc, char **argv) {
    for (int i = 1; i < argc; i++) {
        const char *flag = argv[i], *value = i + 1 < argc ? argv[i + 1] : NULL;
        if (!strcmp(flag, "--stream")) { opt.stream = true; continue; }
        if (!strcmp(flag, "--traceparent")) { opt.traceparent = true; continue; }
        if (!value) usage(flag);
        i++;
        if (!strcmp(flag, "--port")) opt.port = atoi(value);
        else if (!strcmp(flag, "--path")) opt.path = value;
        else if (!strcmp(flag, "--connections")) opt.connections = atoi(value);
        else if (!strcmp(flag, "--seconds")) opt.seconds = atof(value);
        else if (!strcmp(flag, "--warmup")) opt.warmup = atof(value);
        else if (!strcmp(flag, "--stagger")) opt.stagger = atof(value);
        else if (!strcmp(flag, "--drain")) opt.drain = atof(value);
        else if (!strcmp(flag, "--expect")) opt.expect = value;
        else if (!strcmp(flag, "--min-bytes")) opt.min_bytes = strtoull(value, NULL, 10);
        else if (!strcmp(flag, "--max-bytes")) opt.max_bytes = strtoull(value, NULL, 10);
        else if (!strcmp(flag, "--min-events")) opt.min_events = strtoull(value, NULL, 10);
        else if (!strcmp(flag, "--max-events")) opt.max_events = strtoull(value, NULL, 10);
        else if (!strcmp(flag, "--body-file")) opt.body = read_file(value, &opt.body_len);
        else if (!strcmp(flag, "--body")) {
            opt.body = strdup(value);
            opt.body_len = strlen(value);
        } else if (!strcmp(flag, "--header")) {
            size_t at = strlen(opt.headers);
            if (at + strlen(value) + 3 > sizeof opt.headers) usage("too many headers");
            snprintf(opt.headers + at, sizeof opt.headers - at, "%s\r\n", value);
        } else usage(flag);
    }
    if (!opt.port) usage("--port is missing");
    if (opt.connections < 1) usage("--connections");
}

/* Starts the staggered connections that are due; the nanoseconds until the next, or -1. */
static int64_t start_due(struct conn *conns, int64_t now) {
    int64_t next = -1;
    for (int i = 0; i < opt.connections; i++) {
        struct conn *c = conns + i;
        if (!c->start_at) continue;
        if (c->start_at <= now) {
            c->start_at = 0;
            if (sending) send_request(c);
        } else if (next < 0 || c->start_at - now < next) {
            next = c->start_at - now;
        }
    }
    return next;
}

static double cpu_seconds(void) {
    struct rusage use;
    getrusage(RUSAGE_SELF, &use);
    return (double)(use.ru_utime.tv_sec + use.ru_stime.tv_sec) +
           (double)(use.ru_utime.tv_usec + use.ru_stime.tv_usec) / 1e6;
}

static void print_string(const char *text) {
    putchar('"');
    for (; *text; text++) {
        if (*text == '"' || *text == '\\') putchar('\\');
        putchar((unsigned char)*text < 32 ? ' ' : *text);
    }
    putchar('"');
}

int main(int argc, char **argv) {
    parse(argc, argv);
    build_request();
    epoll = epoll_create1(EPOLL_CLOEXEC);
    struct conn *conns = calloc((size_t)opt.connections, sizeof *conns);
    if (!conns) abort();
    for (int i = 0; i < opt.connections; i++) {
        conns[i].fd = -1;
        connect_one(conns + i);
    }
    begin = now_ns();
    measure_from = begin + (int64_t)(opt.warmup * 1e9);
    measure_to = measure_from + (int64_t)(opt.seconds * 1e9);
    int64_t give_up = measure_to + (int64_t)(opt.drain * 1e9), next;
    for (int i = 0; i < opt.connections; i++)
        conns[i].start_at = begin + 1 + (int64_t)(opt.stagger * 1e9 * i / opt.connections);
    bool starting = true;
    for (;;) {
        struct epoll_event events[256];
        int64_t now = now_ns();
        if (now >= measure_to) sending = false;
        if (now >= give_up || (!sending && !waiting)) break;
        next = starting ? start_due(conns, now) : -1;
        starting = next >= 0 && sending;
        int64_t wait = (sending ? measure_to : give_up) - now;
        if (next >= 0 && next < wait) wait = next;
        int n = epoll_wait(epoll, events, 256, (int)(wait / 1000000) + (wait > 1000000));
        for (int i = 0; i < n; i++) {
            struct conn *c = events[i].data.ptr;
            if (c->fd >= 0) on_readable(c);
        }
        for (int i = 0; sending && errors && i < opt.connections; i++) /* revive the failed */
            if (!conns[i].waiting && !conns[i].start_at) send_request(conns + i);
    }
    if (waiting) {
        errors += (uint64_t)waiting;
        if (!first_error[0]) snprintf(first_error, sizeof first_error, "unanswered at the end");
    }
    double wall = (double)(now_ns() - begin) / 1e9;
    printf("{\"connections\":%d,\"seconds\":%.3f,\"requests\":%llu,\"rate\":%.1f,"
           "\"events\":%llu,\"event_rate\":%.1f,\"sent_total\":%llu,\"done_total\":%llu,"
           "\"events_total\":%llu,\"bytes_total\":%llu,\"errors\":%llu,\"unfinished\":%d,"
           "\"reconnects\":%llu,\"wall_seconds\":%.3f,\"cpu_seconds\":%.3f",
           opt.connections, opt.seconds, (unsigned long long)done, (double)done / opt.seconds,
           (unsigned long long)events_in, (double)events_in / opt.seconds,
           (unsigned long long)sent_total, (unsigned long long)done_total,
           (unsigned long long)events_total, (unsigned long long)bytes_total,
           (unsigned long long)errors, waiting, (unsigned long long)reconnects, wall,
           cpu_seconds());
    print_times("latency", &latency);
    print_times("first", &first);
    printf(",\"first_error\":");
    if (first_error[0]) print_string(first_error);
    else printf("null");
    printf("}\n");
    return 0;
}
