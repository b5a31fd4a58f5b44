/*
 * A fast stand-in for vLLM, and a sink for OpenTelemetry, for benchmarks.
 *
 *     upstream --chat PORT --embed PORT --sink PORT
 *
 * Each flag opens one listener on 127.0.0.1 (port 0 picks a free one); one process with one epoll
 * loop serves them all. The ports are printed as one line of JSON once they listen. SIGTERM ends it.
 *
 *   chat   GET /v1/models, POST /v1/chat/completions. With "stream":true: EVENTS chunks, one HTTP
 *          chunk and one write each, as vLLM does; "seed":N paces them at one per N milliseconds
 *          (seed is a standard field, so every gateway hands it on). Unpaced streams take turns.
 *   embed  GET /v1/models, POST /v1/embeddings: DIMENSIONS floats per input, float or base64.
 *   sink   POST /v1/traces, /v1/metrics, /v1/logs: answers 200 and counts what came, spans by kind.
 *   all    GET /stats: the counters so far.
 *
 * Bodies, key order, nulls and headers follow samples recorded from vLLM 0.32. Request bodies are
 * searched, not parsed: the only clients are the benchmark's own gateways.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <ctype.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

enum { EVENTS = 128, DIMENSIONS = 1024, BATCH = 32, ID_MAX = 72, READ_MIN = 16384 };
enum mode { CHAT, EMBED, SINK, MODES };

static const char *const MODEL[MODES] = {"bench-chat", "bench-embed", ""};
#define FINGERPRINT "vllm-0.32.0-802e99c3"

/* ------------------------------------------------------------------ growing byte strings */

struct bytes {
    char *at;
    size_t len, room;
};

static void reserve(struct bytes *b, size_t more) {
    if (b->len + more <= b->room) return;
    size_t room = b->room ? b->room : 1024;
    while (room < b->len + more) room *= 2;
    b->at = realloc(b->at, room);
    if (!b->at) abort();
    b->room = room;
}

static void put(struct bytes *b, const void *data, size_t n) {
    reserve(b, n);
    memcpy(b->at + b->len, data, n);
    b->len += n;
}

#define PUT(b, literal) put(b, literal, sizeof(literal) - 1)

static void put_text(struct bytes *b, const char *text) { put(b, text, strlen(text)); }

static void put_number(struct bytes *b, unsigned long n) {
    char digits[24];
    int at = sizeof digits;
    do digits[--at] = (char)('0' + n % 10);
    while (n /= 10);
    put(b, digits + at, sizeof digits - (size_t)at);
}

static void put_hex(struct bytes *b, size_t n) {
    char digits[20];
    int at = sizeof digits;
    do digits[--at] = "0123456789abcdef"[n & 15];
    while (n >>= 4);
    put(b, digits + at, sizeof digits - (size_t)at);
}

/* ------------------------------------------------------------------ state */

struct conn {
    int fd;
    enum mode mode;
    struct bytes in, out;
    size_t sent;          /* bytes of `out` already written */
    const char *tail;     /* a shared body that follows `out`, never copied */
    size_t tail_len;
    bool want_write, close_after;
    bool streaming, usage;
    int next;             /* next event of the stream */
    int pace;             /* milliseconds between events; 0: as fast as turns allow */
    int64_t due;          /* nanoseconds, monotonic: when a paced stream sends its next event */
    int slot;             /* place in `streams` */
    char id[ID_MAX];
    size_t id_len;
};

static struct {
    unsigned long requests[MODES], streams, streams_done, aborted, sampled, refused;
    unsigned long trace_posts, metric_posts, log_posts, bytes, undecoded;
    unsigned long spans, server_spans, client_spans;
} count;

static int epoll, timer;
static bool timer_on;
static volatile sig_atomic_t stopping;
static struct conn **streams;
static int streams_len, streams_room, unpaced;
static char date[40];
static time_t date_at;
static unsigned long serial = 0x9e3779b97f4a7c15UL;

static struct { struct bytes floats, base64, batch_floats, batch_base64; } vectors;

static int64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static time_t tick_date(void) {
    struct timespec t;
    clock_gettime(CLOCK_REALTIME_COARSE, &t);
    if (t.tv_sec != date_at) {
        struct tm tm;
        date_at = t.tv_sec;
        gmtime_r(&date_at, &tm);
        strftime(date, sizeof date, "%a, %d %b %Y %H:%M:%S GMT", &tm);
    }
    return date_at;
}

/* ------------------------------------------------------------------ looking into a request */

struct span {
    const char *at;
    size_t len;
};

static bool same(struct span s, const char *text) {
    return s.len == strlen(text) && memcmp(s.at, text, s.len) == 0;
}

/* What follows `"key":` in a JSON body, or NULL. The first hit counts. */
static const char *field(struct span body, const char *quoted_key) {
    size_t key_len = strlen(quoted_key);
    const char *end = body.at + body.len, *at = body.at;
    while ((at = memmem(at, (size_t)(end - at), quoted_key, key_len))) {
        at += key_len;
        while (at < end && isspace((unsigned char)*at)) at++;
        if (at < end && *at == ':') {
            at++;
            while (at < end && isspace((unsigned char)*at)) at++;
            return at < end ? at : NULL;
        }
    }
    return NULL;
}

static bool is_true(struct span body, const char *quoted_key) {
    const char *value = field(body, quoted_key);
    return value && body.at + body.len - value >= 4 && memcmp(value, "true", 4) == 0;
}

/* How many inputs an embeddings request has: strings or arrays in the list; a flat list of token
 * ids, or a string, is one. */
static int input_count(struct span body) {
    const char *at = field(body, "\"input\""), *end = body.at + body.len;
    if (!at) return 0;
    if (*at != '[') return 1;
    int depth = 0, items = 0;
    for (; at < end; at++) {
        if (*at == '"') {
            if (depth == 1) items++;
            for (at++; at < end && *at != '"'; at++)
                if (*at == '\\') at++;
        } else if (*at == '[') {
            if (++depth == 2) items++;
        } else if (*at == ']' && --depth == 0) {
            break;
        } else if (depth == 1 && items == 0 && isdigit((unsigned char)*at)) {
            return 1;
        }
    }
    return items;
}

/* ------------------------------------------------------------------ answers */

static void put_head(struct bytes *o, const char *status_and_more) {
    PUT(o, "HTTP/1.1 ");
    put_text(o, status_and_more);
    PUT(o, "date: ");
    put(o, date, 29);
    PUT(o, "\r\nserver: uvicorn\r\n");
}

static void put_length(struct bytes *o, size_t n) {
    PUT(o, "content-length: ");
    put_number(o, n);
    PUT(o, "\r\ncontent-type: application/json\r\nvary: Origin\r\n\r\n");
}

static void answer(struct conn *c, const char *status, const char *body) {
    if (status[0] == '4') count.refused++;
    put_head(&c->out, status);
    if (memcmp(status, "405", 3) == 0) PUT(&c->out, "allow: POST\r\n");
    put_length(&c->out, strlen(body));
    put_text(&c->out, body);
}

static const char NOT_FOUND[] = "{\"detail\":\"Not Found\"}";
static const char NOT_ALLOWED[] = "{\"detail\":\"Method Not Allowed\"}";

static void refuse(struct conn *c, const char *field_name) {
    char body[512];
    snprintf(body, sizeof body,
             "{\"error\":{\"message\":\"1 validation error:\\n  {'type': 'missing', 'loc': "
             "('body', '%s'), 'msg': 'Field required'}\",\"type\":\"Bad Request\",\"param\":\"%s\","
             "\"code\":400}}", field_name, field_name);
    answer(c, "400 Bad Request\r\n", body);
}

/* vLLM answers 404 for a model it does not have, and takes a missing one as its default. */
static bool wrong_model(struct conn *c, struct span body) {
    const char *value = field(body, "\"model\"");
    const char *model = MODEL[c->mode];
    size_t n = strlen(model);
    if (!value || *value != '"') return false;
    if ((size_t)(body.at + body.len - value) > n + 1 && !memcmp(value + 1, model, n) &&
        value[n + 1] == '"')
        return false;
    answer(c, "404 Not Found\r\n",
           "{\"error\":{\"message\":\"The model does not exist.\",\"type\":\"NotFoundError\","
           "\"param\":\"model\",\"code\":404}}");
    return true;
}

static void answer_models(struct conn *c) {
    char body[1024];
    long at = (long)tick_date();
    snprintf(body, sizeof body,
             "{\"object\":\"list\",\"data\":[{\"id\":\"%s\",\"object\":\"model\",\"created\":%ld,"
             "\"owned_by\":\"vllm\",\"root\":\"models/%s\",\"parent\":null,\"max_model_len\":8192,"
             "\"permission\":[{\"id\":\"modelperm-ab8d3d9c5ae40339\",\"object\":"
             "\"model_permission\",\"created\":%ld,\"allow_create_engine\":false,"
             "\"allow_sampling\":true,\"allow_logprobs\":true,\"allow_search_indices\":false,"
             "\"allow_view\":true,\"allow_fine_tuning\":false,\"organization\":\"*\",\"group\":null,"
             "\"is_blocking\":false}]}]}", MODEL[c->mode], at, MODEL[c->mode], at);
    answer(c, "200 OK\r\n", body);
}

static void answer_chat(struct conn *c) {
    static const char object[] = "\",\"object\":\"chat.completion\",\"created\":";
    static const char rest[] =
        ",\"model\":\"bench-chat\",\"choices\":[{\"index\":0,\"message\":{\"role\":\"assistant\","
        "\"content\":\"The capital of France is Paris.\",\"refusal\":null,\"annotations\":null,"
        "\"audio\":null,\"function_call\":null,\"reasoning\":null},\"logprobs\":null,"
        "\"finish_reason\":\"stop\",\"stop_reason\":null,\"token_ids\":null,"
        "\"routed_experts\":null}],\"service_tier\":null,\"system_fingerprint\":\"" FINGERPRINT "\","
        "\"usage\":{\"prompt_tokens\":37,\"total_tokens\":45,\"completion_tokens\":8,"
        "\"prompt_tokens_details\":null,\"completion_tokens_details\":null},"
        "\"prompt_logprobs\":null,\"prompt_token_ids\":null,\"prompt_text\":null,"
        "\"kv_transfer_params\":null,\"ec_transfer_params\":null,\"metrics\":null}";
    static const char id[] = "{\"id\":\"chatcmpl-";
    put_head(&c->out, "200 OK\r\n");
    put_length(&c->out, sizeof id - 1 + c->id_len + sizeof object - 1 + 10 + sizeof rest - 1);
    PUT(&c->out, id);
    put(&c->out, c->id, c->id_len);
    PUT(&c->out, object);
    put_number(&c->out, (unsigned long)date_at); /* ten digits until the year 2286 */
    PUT(&c->out, rest);
}

/* One event in one HTTP chunk. `next` 0 is the role, EVENTS-1 the last token, then usage, then the
 * end of the stream. Returns whether that was the end. */
static bool put_event(struct conn *c) {
    static const char *const words[8] = {
        " understanding", " performance", " of", " asynchronous", " gateways", " needs",
        " careful", " measurement"};
    static struct bytes e;
    bool done = false;
    e.len = 0;
    if (c->next == EVENTS && !c->usage) c->next++;
    PUT(&e, "data: ");
    if (c->next > EVENTS) {
        PUT(&e, "[DONE]");
        done = true;
    } else {
        PUT(&e, "{\"id\":\"chatcmpl-");
        put(&e, c->id, c->id_len);
        PUT(&e, "\",\"object\":\"chat.completion.chunk\",\"created\":");
        put_number(&e, (unsigned long)date_at);
        PUT(&e, ",\"model\":\"bench-chat\",\"choices\":[");
        if (c->next == EVENTS) {
            PUT(&e, "],\"usage\":{\"prompt_tokens\":37,\"total_tokens\":164,"
                    "\"completion_tokens\":127},\"system_fingerprint\":\"" FINGERPRINT "\"}");
        } else if (c->next == 0) {
            PUT(&e, "{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"\"},"
                    "\"logprobs\":null,\"finish_reason\":null}],\"prompt_token_ids\":null,"
                    "\"prompt_text\":null}");
        } else {
            PUT(&e, "{\"index\":0,\"delta\":{\"content\":\"");
            put_text(&e, words[c->next & 7]);
            PUT(&e, "\"},\"logprobs\":null,\"finish_reason\":");
            if (c->next < EVENTS - 1) {
                PUT(&e, "null,\"token_ids\":null}]}");
            } else {
                PUT(&e, "\"length\",\"stop_reason\":null,\"token_ids\":null}]");
                if (!c->usage) PUT(&e, ",\"system_fingerprint\":\"" FINGERPRINT "\"");
                PUT(&e, "}");
            }
        }
    }
    PUT(&e, "\n\n");
    c->next++;
    put_hex(&c->out, e.len);
    PUT(&c->out, "\r\n");
    put(&c->out, e.at, e.len);
    PUT(&c->out, "\r\n");
    if (done) PUT(&c->out, "0\r\n\r\n");
    return done;
}

static void put_embeddings(struct bytes *o, const struct bytes *vector, int inputs) {
    PUT(o, "\"data\":[");
    for (int i = 0; i < inputs; i++) {
        if (i) PUT(o, ",");
        PUT(o, "{\"index\":");
        put_number(o, (unsigned long)i);
        PUT(o, ",\"object\":\"embedding\",\"embedding\":");
        put(o, vector->at, vector->len);
        PUT(o, "}");
    }
    PUT(o, "],\"usage\":{\"prompt_tokens\":");
    put_number(o, 9UL * (unsigned long)inputs);
    PUT(o, ",\"total_tokens\":");
    put_number(o, 9UL * (unsigned long)inputs);
    PUT(o, ",\"completion_tokens\":0,\"prompt_tokens_details\":null,"
           "\"completion_tokens_details\":null}}");
}

static void answer_embeddings(struct conn *c, struct span body) {
    int inputs = input_count(body);
    if (!inputs) {
        refuse(c, "input");
        return;
    }
    const char *format = field(body, "\"encoding_format\"");
    bool base64 = format && body.at + body.len - format >= 8 && !memcmp(format, "\"base64\"", 8);
    struct bytes other = {0};
    const struct bytes *rest = base64 ? &vectors.batch_base64 : &vectors.batch_floats;
    if (inputs != BATCH) {
        put_embeddings(&other, base64 ? &vectors.base64 : &vectors.floats, inputs);
        rest = &other;
    }
    static const char id[] = "{\"id\":\"embd-", object[] = "\",\"object\":\"list\",\"created\":";
    static const char model[] = ",\"model\":\"bench-embed\",";
    put_head(&c->out, "200 OK\r\n");
    put_length(&c->out, sizeof id - 1 + c->id_len + sizeof object - 1 + 10 + sizeof model - 1 +
                            rest->len);
    PUT(&c->out, id);
    put(&c->out, c->id, c->id_len);
    PUT(&c->out, object);
    put_number(&c->out, (unsigned long)date_at);
    PUT(&c->out, model);
    if (inputs == BATCH) { /* the measured case: half a megabyte that is never copied */
        c->tail = rest->at;
        c->tail_len = rest->len;
    } else {
        put(&c->out, other.at, other.len);
        free(other.at);
    }
}

/* A fixed unit vector, printed as vLLM prints a float32: with a double's digits. */
static void make_vectors(void) {
    static const char alphabet[] =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    static float values[DIMENSIONS];
    unsigned char *raw = (unsigned char *)values;
    uint32_t state = 12345;
    PUT(&vectors.floats, "[");
    for (int i = 0; i < DIMENSIONS; i++) {
        char text[40];
        state = state * 1664525u + 1013904223u;
        values[i] = ((float)(state >> 8) / 16777216.0f - 0.5f) / 9.2376f;
        snprintf(text, sizeof text, "%s%.17g", i ? "," : "", (double)values[i]);
        put_text(&vectors.floats, text);
    }
    PUT(&vectors.floats, "]");
    PUT(&vectors.base64, "\"");
    for (size_t i = 0; i < sizeof values; i += 3) {
        size_t left = sizeof values - i;
        uint32_t three = (uint32_t)raw[i] << 16 | (left > 1 ? (uint32_t)raw[i + 1] << 8 : 0) |
                         (left > 2 ? raw[i + 2] : 0);
        char four[4] = {alphabet[three >> 18], alphabet[three >> 12 & 63],
                        left > 1 ? alphabet[three >> 6 & 63] : '=',
                        left > 2 ? alphabet[three & 63] : '='};
        put(&vectors.base64, four, 4);
    }
    PUT(&vectors.base64, "\"");
    put_embeddings(&vectors.batch_floats, &vectors.floats, BATCH);
    put_embeddings(&vectors.batch_base64, &vectors.base64, BATCH);
}

/* ------------------------------------------------------------------ OTLP: counting spans */

struct proto {
    const unsigned char *at, *end;
    bool bad;
};

static uint64_t varint(struct proto *p) {
    uint64_t value = 0;
    for (int shift = 0; shift < 64 && p->at < p->end; shift += 7) {
        unsigned char byte = *p->at++;
        value |= (uint64_t)(byte & 127) << shift;
        if (byte < 128) return value;
    }
    p->bad = true;
    return 0;
}

/* The next field: its number, with `value` (varint) or `sub` (length-delimited) filled; 0 at the end. */
static unsigned next_field(struct proto *p, struct proto *sub, uint64_t *value) {
    if (p->at >= p->end || p->bad) return 0;
    uint64_t key = varint(p), size;
    *sub = (struct proto){NULL, NULL, false};
    *value = 0;
    switch (key & 7) {
    case 0: *value = varint(p); return (unsigned)(key >> 3);
    case 1: size = 8; break;
    case 2: size = varint(p); break;
    case 5: size = 4; break;
    default: p->bad = true; return 0;
    }
    if (size > (uint64_t)(p->end - p->at)) {
        p->bad = true;
        return 0;
    }
    *sub = (struct proto){p->at, p->at + size, false};
    p->at += size;
    return (unsigned)(key >> 3);
}

/* ExportTraceServiceRequest.resource_spans[1].scope_spans[2].spans[2].kind[6]; 2 SERVER, 3 CLIENT. */
static void count_spans(struct proto message, int depth) {
    struct proto sub, ignored;
    uint64_t value;
    unsigned number;
    while ((number = next_field(&message, &sub, &value))) {
        if (number != (depth == 0 ? 1u : 2u) || !sub.at) continue;
        if (depth < 2) {
            count_spans(sub, depth + 1);
            continue;
        }
        count.spans++;
        while ((number = next_field(&sub, &ignored, &value))) {
            if (number != 6 || ignored.at) continue;
            count.server_spans += value == 2;
            count.client_spans += value == 3;
        }
    }
    if (message.bad) count.undecoded++;
}

static void answer_sink(struct conn *c, struct span path, struct span body, bool encoded) {
    if (same(path, "/v1/traces")) {
        const unsigned char *at = (const unsigned char *)body.at;
        count.trace_posts++;
        if (encoded) count.undecoded++;
        else count_spans((struct proto){at, at + body.len, false}, 0);
    } else if (same(path, "/v1/metrics")) {
        count.metric_posts++;
    } else if (same(path, "/v1/logs")) {
        count.log_posts++;
    } else {
        answer(c, "404 Not Found\r\n", NOT_FOUND);
        return;
    }
    count.bytes += body.len;
    put_head(&c->out, "200 OK\r\n");
    PUT(&c->out, "content-length: 0\r\ncontent-type: application/x-protobuf\r\n\r\n");
}

static void answer_stats(struct conn *c) {
    char body[1024];
    snprintf(body, sizeof body,
             "{\"chat\":%lu,\"embeddings\":%lu,\"streams\":%lu,\"streams_done\":%lu,"
             "\"aborted\":%lu,\"refused\":%lu,\"sampled\":%lu,\"trace_posts\":%lu,"
             "\"metric_posts\":%lu,\"log_posts\":%lu,\"bytes\":%lu,\"undecoded\":%lu,\"spans\":%lu,"
             "\"server_spans\":%lu,\"client_spans\":%lu}",
             count.requests[CHAT], count.requests[EMBED], count.streams, count.streams_done,
             count.aborted, count.refused, count.sampled, count.trace_posts, count.metric_posts,
             count.log_posts, count.bytes, count.undecoded, count.spans, count.server_spans,
             count.client_spans);
    answer(c, "200 OK\r\n", body);
}

/* ------------------------------------------------------------------ connections */

static void leave_streams(struct conn *c) {
    if (!c->streaming) return;
    c->streaming = false;
    unpaced -= c->pace == 0;
    streams[c->slot] = streams[--streams_len];
    streams[c->slot]->slot = c->slot;
}

static void hang_up(struct conn *c) {
    if (c->streaming) count.aborted++;
    leave_streams(c);
    close(c->fd);
    free(c->in.at);
    free(c->out.at);
    free(c);
}

/* Writes what is pending. False when the connection is gone (and freed). */
static bool flush(struct conn *c) {
    while (c->sent < c->out.len || c->tail_len) {
        struct iovec parts[2] = {{c->out.at + c->sent, c->out.len - c->sent},
                                 {(void *)(uintptr_t)c->tail, c->tail_len}};
        struct msghdr message = {.msg_iov = parts, .msg_iovlen = c->tail_len ? 2 : 1};
        ssize_t n = sendmsg(c->fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (n < 0) {
            if (errno == EAGAIN || errno == EINTR) break;
            hang_up(c);
            return false;
        }
        size_t head = (size_t)n < parts[0].iov_len ? (size_t)n : parts[0].iov_len;
        c->sent += head;
        c->tail += (size_t)n - head;
        c->tail_len -= (size_t)n - head;
    }
    bool pending = c->sent < c->out.len || c->tail_len;
    if (!pending) c->sent = c->out.len = 0;
    if (pending != c->want_write) {
        struct epoll_event e = {.events = EPOLLIN | (pending ? EPOLLOUT : 0), .data.ptr = c};
        c->want_write = pending;
        epoll_ctl(epoll, EPOLL_CTL_MOD, c->fd, &e);
    }
    if (!pending && c->close_after && !c->streaming) {
        hang_up(c);
        return false;
    }
    return true;
}

static void begin_stream(struct conn *c, struct span body) {
    const char *seed = field(body, "\"seed\"");
    long pace = seed ? strtol(seed, NULL, 10) : 0;
    count.streams++;
    put_head(&c->out, "200 OK\r\n");
    PUT(&c->out, "content-type: text/event-stream; charset=utf-8\r\nvary: Origin\r\n"
                 "transfer-encoding: chunked\r\n\r\n");
    c->usage = is_true(body, "\"include_usage\"");
    c->pace = pace > 0 && pace <= 1000 ? (int)pace : 0;
    c->next = 0;
    c->streaming = true;
    put_event(c); /* the first event goes out with the head, at once */
    c->due = now_ns() + c->pace * 1000000LL;
    if (streams_len == streams_room) {
        streams_room = streams_room ? 2 * streams_room : 64;
        streams = realloc(streams, (size_t)streams_room * sizeof *streams);
        if (!streams) abort();
    }
    unpaced += c->pace == 0;
    c->slot = streams_len;
    streams[streams_len++] = c;
}

static bool post_route(enum mode mode, struct span path) {
    static const char *const routes[MODES][8] = {
        [CHAT] = {"/v1/chat/completions", "/v1/completions", "/v1/responses", "/tokenize", NULL},
        [EMBED] = {"/v1/embeddings", "/pooling", "/score", "/v1/score", "/rerank", "/v1/rerank",
                   "/tokenize", NULL},
        [SINK] = {"/v1/traces", "/v1/metrics", "/v1/logs", NULL}};
    for (const char *const *route = routes[mode]; *route; route++)
        if (same(path, *route)) return true;
    return false;
}

static void route(struct conn *c, bool post, struct span path, struct span body, bool encoded) {
    if (!post && same(path, "/stats")) {
        answer_stats(c);
    } else if (!post && c->mode != SINK && same(path, "/v1/models")) {
        answer_models(c);
    } else if (!post && c->mode != SINK && same(path, "/version")) {
        answer(c, "200 OK\r\n", "{\"version\":\"0.32.0\"}");
    } else if (!post && c->mode != SINK && same(path, "/health")) {
        answer(c, "200 OK\r\n", "");
    } else if (!post && post_route(c->mode, path)) {
        answer(c, "405 Method Not Allowed\r\n", NOT_ALLOWED);
    } else if (!post || !post_route(c->mode, path)) {
        answer(c, "404 Not Found\r\n", NOT_FOUND);
    } else if (c->mode == SINK) {
        answer_sink(c, path, body, encoded);
    } else if (wrong_model(c, body)) {
        return;
    } else if (same(path, "/v1/chat/completions")) {
        if (!field(body, "\"messages\"")) {
            refuse(c, "messages");
            return;
        }
        count.requests[CHAT]++;
        if (is_true(body, "\"stream\"")) begin_stream(c, body);
        else answer_chat(c);
    } else if (same(path, "/v1/embeddings")) {
        count.requests[EMBED]++;
        answer_embeddings(c, body);
    } else {
        refuse(c, "unsupported_by_the_benchmark");
    }
}

/* Joins a chunked body in place. The bytes consumed, 0 while incomplete, -1 when broken. */
static ssize_t join_chunks(char *at, size_t len, size_t *body_len) {
    size_t read = 0, write = 0;
    for (;;) {
        char *eol = memmem(at + read, len - read, "\r\n", 2);
        if (!eol) return 0;
        char *stop;
        unsigned long size = strtoul(at + read, &stop, 16);
        if (stop == at + read) return -1;
        read = (size_t)(eol - at) + 2;
        if (len - read < size + 2) return 0;
        if (!size) break;
        memmove(at + write, at + read, size);
        write += size;
        read += size + 2;
    }
    *body_len = write;
    return (ssize_t)(read + 2); /* no trailers: none of the clients sends them */
}

/* A chunked body is joined only once whole, since joining moves its bytes. */
static bool chunks_complete(const char *at, size_t len) {
    return len >= 5 && memcmp(at + len - 5, "0\r\n\r\n", 5) == 0;
}

/* Takes one request off the input and answers it. False when none is complete. */
static bool take_request(struct conn *c) {
    char *at = c->in.at;
    char *head_end = c->in.len ? memmem(at, c->in.len, "\r\n\r\n", 4) : NULL;
    if (!head_end) return false;
    size_t head = (size_t)(head_end - at) + 4, length = 0;
    bool chunked = false, encoded = false;
    char *line = memchr(at, '\n', head);
    c->id_len = 0;
    for (line++; line < head_end; line = (char *)memchr(line, '\n', head) + 1) {
        char *end = memchr(line, '\r', (size_t)(head_end + 2 - line));
        char *colon = memchr(line, ':', (size_t)(end - line));
        if (!colon) continue;
        size_t name = (size_t)(colon - line);
        char *value = colon + 1;
        while (value < end && *value == ' ') value++;
        size_t size = (size_t)(end - value);
        if (name == 14 && !strncasecmp(line, "content-length", 14)) {
            length = strtoul(value, NULL, 10);
        } else if (name == 12 && !strncasecmp(line, "x-request-id", 12)) {
            c->id_len = size < ID_MAX ? size : ID_MAX; /* vLLM makes it the id in the body */
            for (size_t i = 0; i < c->id_len; i++)
                c->id[i] = value[i] == '"' || value[i] == '\\' ? '_' : value[i];
        } else if (name == 11 && !strncasecmp(line, "traceparent", 11)) {
            count.sampled += size == 55 && value[54] == '1';
        } else if (name == 17 && !strncasecmp(line, "transfer-encoding", 17)) {
            chunked = true;
        } else if (name == 16 && !strncasecmp(line, "content-encoding", 16)) {
            encoded = true;
        } else if (name == 10 && !strncasecmp(line, "connection", 10)) {
            c->close_after = size == 5 && !strncasecmp(value, "close", 5);
        }
    }
    size_t used = head + length;
    if (chunked) {
        if (!chunks_complete(at + head, c->in.len - head)) return false;
        ssize_t n = join_chunks(at + head, c->in.len - head, &length);
        if (n < 0) c->close_after = true;
        used = n > 0 ? head + (size_t)n : c->in.len;
    }
    if (c->in.len < used) {
        reserve(&c->in, used - c->in.len);
        return false;
    }
    if (!c->id_len) {
        serial = serial * 6364136223846793005UL + 1442695040888963407UL;
        for (int i = 0; i < 16; i++) c->id[i] = "0123456789abcdef"[serial >> (4 * i) & 15];
        c->id_len = 16;
    }
    char *space = memchr(at, ' ', head);
    char *path = space ? space + 1 : at;
    char *path_end = memchr(path, ' ', head - (size_t)(path - at));
    size_t path_len = path_end ? strcspn(path, " ?") : 0;
    route(c, !memcmp(at, "POST", 4), (struct span){path, path_len},
          (struct span){at + head, length}, encoded);
    c->in.len -= used;
    memmove(at, at + used, c->in.len);
    return true;
}

/* Answers what is complete. False when the connection is gone. */
static bool serve(struct conn *c) {
    while (!c->streaming && !c->out.len && take_request(c))
        if (!flush(c)) return false;
    return true;
}

static void on_readable(struct conn *c) {
    reserve(&c->in, READ_MIN + 1);
    ssize_t n = recv(c->fd, c->in.at + c->in.len, c->in.room - c->in.len - 1, MSG_DONTWAIT);
    if (n < 0 && (errno == EAGAIN || errno == EINTR)) return;
    if (n <= 0) {
        hang_up(c);
        return;
    }
    c->in.len += (size_t)n;
    c->in.at[c->in.len] = 0; /* so that strtoul stops */
    serve(c);
}

/* Sends the next event; at the end of the stream, turns to what the client sent meanwhile. */
static void send_event(struct conn *c) {
    if (put_event(c)) {
        leave_streams(c);
        count.streams_done++;
    }
    if (flush(c) && !c->streaming) serve(c);
}

/* One turn of all streams: an event each for the unpaced, and for the paced that are due. Those
 * whose client does not keep up wait. Backwards, since a finished one is replaced by the last. */
static void run_streams(void) {
    int64_t now = streams_len > unpaced ? now_ns() : 0;
    for (int i = streams_len - 1; i >= 0; i--) {
        struct conn *c = streams[i];
        if (c->out.len) continue;
        if (c->pace) {
            if (c->due > now && c->next < EVENTS) continue; /* usage and [DONE] follow at once */
            c->due += c->pace * 1000000LL;
        }
        send_event(c);
    }
}

/* A tick each quarter of a millisecond while anything is paced: finer than what is measured. */
static void set_timer(void) {
    bool on = streams_len > unpaced;
    if (on == timer_on) return;
    struct itimerspec t = {{0, on ? 250000 : 0}, {0, on ? 250000 : 0}};
    timerfd_settime(timer, 0, &t, NULL);
    timer_on = on;
}

static int listen_on(int port, int *actual) {
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port),
                            .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof a;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), one = 1;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(fd, (struct sockaddr *)&a, sizeof a) || listen(fd, 4096) ||
        getsockname(fd, (struct sockaddr *)&a, &size)) {
        perror("upstream: listen");
        exit(1);
    }
    *actual = ntohs(a.sin_port);
    return fd;
}

static void accept_all(int listener, enum mode mode) {
    int fd, one = 1;
    while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) {
        struct conn *c = calloc(1, sizeof *c);
        if (!c) abort();
        c->fd = fd;
        c->mode = mode;
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        struct epoll_event e = {.events = EPOLLIN, .data.ptr = c};
        epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &e);
    }
}

static void on_signal(int number) {
    (void)number;
    stopping = 1;
}

int main(int argc, char **argv) {
    static const char *const flags[MODES] = {"--chat", "--embed", "--sink"};
    static int listeners[MODES] = {-1, -1, -1};
    const char *comma = "{";
    struct sigaction action = {.sa_handler = on_signal};
    sigaction(SIGTERM, &action, NULL);
    sigaction(SIGINT, &action, NULL);
    epoll = epoll_create1(EPOLL_CLOEXEC);
    timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
    struct epoll_event e = {.events = EPOLLIN, .data.ptr = &timer};
    epoll_ctl(epoll, EPOLL_CTL_ADD, timer, &e);
    make_vectors();
    for (int i = 1; i + 1 < argc; i += 2) {
        int mode = 0, port;
        while (mode < MODES && strcmp(argv[i], flags[mode])) mode++;
        if (mode == MODES) break;
        listeners[mode] = listen_on(atoi(argv[i + 1]), &port);
        e.data.ptr = &listeners[mode];
        epoll_ctl(epoll, EPOLL_CTL_ADD, listeners[mode], &e);
        printf("%s\"%s\":%d", comma, flags[mode] + 2, port);
        comma = ",";
    }
    if (*comma == '{') {
        fprintf(stderr, "usage: upstream [--chat PORT] [--embed PORT] [--sink PORT]\n");
        return 2;
    }
    printf("}\n");
    fflush(stdout);
    while (!stopping) {
        struct epoll_event events[256];
        int n = epoll_wait(epoll, events, 256, unpaced ? 0 : -1);
        tick_date();
        for (int i = 0; i < n; i++) {
            void *at = events[i].data.ptr;
            uint64_t ticks;
            if (at == &timer) {
                if (read(timer, &ticks, sizeof ticks) < 0) continue;
            } else if (at >= (void *)listeners && at < (void *)(listeners + MODES)) {
                accept_all(*(int *)at, (enum mode)((int *)at - listeners));
            } else if (events[i].events & (EPOLLIN | EPOLLHUP | EPOLLERR)) {
                on_readable(at);
            } else if (flush(at)) {
                serve(at);
            }
        }
        if (streams_len) run_streams();
        set_timer();
    }
    return 0;
}
