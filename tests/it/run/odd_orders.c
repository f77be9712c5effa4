// Makes the socket calls in unusual orders, and prints what they return: the same, whether the
// program runs by itself or under "threadsocks run".
//
// Usage: odd_orders ECHO_PORT CLOSED_PORT. The server on loopback returns the bytes that it gets.

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

enum { THREADS = 200 };

static int echo_port, closed_port;

static struct sockaddr_in to(int port) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    return address;
}

static const char *result(int value) {
    return value < 0 ? strerrorname_np(errno) : "done";
}

static int tcp(int flags) { return socket(AF_INET, SOCK_STREAM | flags, 0); }

static int dial(int socket, int port) {
    struct sockaddr_in address = to(port);
    return connect(socket, (struct sockaddr *)&address, sizeof address);
}

static const char *echoes(int socket) {
    char sent[] = "a line", got[sizeof sent];
    if (send(socket, sent, sizeof sent, MSG_NOSIGNAL) != sizeof sent)
        return strerrorname_np(errno);
    // A socket that does not block is waited for.
    for (size_t length = 0; length < sizeof got;) {
        struct pollfd readable = {.fd = socket, .events = POLLIN};
        poll(&readable, 1, 10000);
        ssize_t part = recv(socket, got + length, sizeof got - length, 0);
        if (part <= 0)
            return part ? strerrorname_np(errno) : "EOF";
        length += part;
    }
    return memcmp(sent, got, sizeof got) ? "other bytes" : "echoes";
}

static const char *peer(int socket) {
    struct sockaddr_in address, asked = to(echo_port);
    socklen_t length = sizeof address;
    if (getpeername(socket, (struct sockaddr *)&address, &length) < 0)
        return strerrorname_np(errno);
    return memcmp(&address, &asked, 8) ? "another peer" : "the peer";
}

static int port_of(int socket) {
    struct sockaddr_in address = {0};
    socklen_t length = sizeof address;
    getsockname(socket, (struct sockaddr *)&address, &length);
    return ntohs(address.sin_port);
}

static int pending(int socket) {
    int error = -1;
    socklen_t length = sizeof error;
    getsockopt(socket, SOL_SOCKET, SO_ERROR, &error, &length);
    return error;
}

// Waits for the end of a connect(2) that did not wait; over loopback it may have failed at once.
static const char *outcome(int socket, int value) {
    if (value < 0 && errno != EINPROGRESS)
        return strerrorname_np(errno);
    struct pollfd writable = {.fd = socket, .events = POLLOUT};
    if (poll(&writable, 1, 10000) != 1)
        return "no event";
    int error = pending(socket);
    return error ? strerrorname_np(error) : "connected";
}

static void *one_of_many(void *unused) {
    int socket = tcp(0);
    long works = dial(socket, echo_port) == 0 && !strcmp(echoes(socket), "echoes");
    close(socket);
    return (void *)works;
}

static void by_blocking(void) {
    int it = tcp(0);
    printf("before: %s\n", peer(it));
    printf("connect: %s\n", result(dial(it, echo_port)));
    printf("again: %s\n", result(dial(it, echo_port)));
    printf("%s %s\n", peer(it), echoes(it));
    struct sockaddr nowhere = {.sa_family = AF_UNSPEC};
    printf("end: %s\n", result(connect(it, &nowhere, sizeof nowhere)));
    printf("after the end: %s\n", peer(it));
    printf("closed port: %s\n", result(dial(it, closed_port)));
    printf("then the open one: %s\n", result(dial(it, echo_port)));
    printf("%s %s, error %d\n", peer(it), echoes(it), pending(it));
    shutdown(it, SHUT_WR);
    char byte;
    printf("half-close: %zd bytes\n", recv(it, &byte, 1, 0));
    close(it);
    it = tcp(0);
    struct sockaddr_in any = {.sin_family = AF_INET};
    printf("bind: %s\n", result(bind(it, (struct sockaddr *)&any, sizeof any)));
    printf("a port: %d\n", port_of(it) > 0);
    printf("connect: %s\n", result(dial(it, echo_port)));
    printf("%s\n", echoes(it));
    close(it);
}

static void without_blocking(void) {
    int it = tcp(SOCK_NONBLOCK);
    struct pollfd early = {.fd = it, .events = POLLOUT};
    poll(&early, 1, 0);
    printf("unconnected: hang-up %d\n", !!(early.revents & POLLHUP));
    int set = epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event event = {.events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET};
    epoll_ctl(set, EPOLL_CTL_ADD, it, &event);
    epoll_wait(set, &event, 1, 0);
    printf("connect: %s\n", result(dial(it, echo_port)));
    printf("epoll: %d,", epoll_wait(set, &event, 1, 10000));
    printf(" writable %d, hang-up %d\n", !!(event.events & EPOLLOUT), !!(event.events & EPOLLHUP));
    printf("error %d, %s\n", pending(it), peer(it));
    printf("again: %s,", result(dial(it, echo_port)));
    printf(" and again: %s\n", result(dial(it, echo_port)));
    printf("%s\n", echoes(it));
    close(it);
    close(set);
    it = tcp(SOCK_NONBLOCK);
    printf("closed port: %s\n", outcome(it, dial(it, closed_port)));
    printf("error now: %d\n", pending(it));
    close(it);
    it = tcp(SOCK_NONBLOCK);
    dial(it, echo_port);
    close(it);
    it = tcp(0);
    printf("after one that was closed: %s\n", result(dial(it, echo_port)));
    printf("%s\n", echoes(it));
    close(it);
}

static void with_processes(char *self) {
    int it = tcp(0), copy = dup(it);
    printf("connect the copy: %s\n", result(dial(copy, echo_port)));
    close(copy);
    printf("use the first: %s %s\n", peer(it), echoes(it));
    close(it);
    it = tcp(0);
    fflush(stdout);
    if (fork() == 0)
        _exit(dial(it, echo_port) != 0);
    int status;
    wait(&status);
    printf("connected by a child: %d %s %s\n", WEXITSTATUS(status), peer(it), echoes(it));
    fflush(stdout);
    if (fork() == 0) {
        char number[12];
        snprintf(number, sizeof number, "%d", it);
        execl(self, self, "use", number, (char *)0);
        _exit(1);
    }
    wait(&status);
    int ends[2];
    socketpair(AF_UNIX, SOCK_DGRAM, 0, ends);
    union {
        struct cmsghdr head;
        char room[CMSG_SPACE(sizeof(int))];
    } control = {.head = {CMSG_LEN(sizeof(int)), SOL_SOCKET, SCM_RIGHTS}};
    memcpy(CMSG_DATA(&control.head), &it, sizeof it);
    char byte = 0;
    struct iovec data = {&byte, 1};
    struct msghdr message = {.msg_iov = &data, .msg_iovlen = 1};
    message.msg_control = &control;
    message.msg_controllen = sizeof control;
    printf("pass it on: %s\n", result(sendmsg(ends[0], &message, 0)));
    close(it);
    recvmsg(ends[1], &message, 0);
    memcpy(&it, CMSG_DATA(&control.head), sizeof it);
    printf("received: %s %s\n", peer(it), echoes(it));
    close(it);
}

static void of_a_server(void) {
    int listener = tcp(0), it = tcp(0);
    struct sockaddr_in address = to(0);
    printf("bind: %s\n", result(bind(listener, (struct sockaddr *)&address, sizeof address)));
    printf("listen: %s\n", result(listen(listener, 5)));
    printf("connect: %s\n", result(dial(it, port_of(listener))));
    int accepted = accept4(listener, 0, 0, SOCK_CLOEXEC);
    printf("accept: %s, close-on-exec %d\n", result(accepted), fcntl(accepted, F_GETFD));
    printf("send: %zd\n", send(it, "abc", 3, 0));
    char bytes[3];
    printf("receive: %zd\n", recv(accepted, bytes, 3, MSG_WAITALL));
    fcntl(listener, F_SETFL, O_NONBLOCK);
    printf("no other: %s\n", result(accept(listener, 0, 0)));
    close(it), close(accepted), close(listener);
}

static void with_wrong_arguments(void) {
    int it = tcp(0), file = open("/dev/null", O_RDWR);
    struct sockaddr_in address = to(echo_port);
    struct sockaddr *const pointer = (struct sockaddr *)&address;
    socklen_t length = sizeof address;
    printf("no descriptor: %s\n", result(connect(-1, pointer, length)));
    printf("no socket: %s\n", result(connect(file, pointer, length)));
    printf("no memory: %s\n", result(connect(it, (struct sockaddr *)8, length)));
    printf("short: %s\n", result(connect(it, pointer, 8)));
    printf("long: %s\n", result(connect(it, pointer, 4096)));
    printf("connect: %s\n", result(connect(it, pointer, length)));
    printf("no length: %s\n", result(getpeername(it, pointer, 0)));
    printf("no room: %s\n", result(getpeername(it, (struct sockaddr *)8, &length)));
    length = 4;
    memset(&address, 7, sizeof address);
    printf("little room: %s", result(getpeername(it, pointer, &length)));
    printf(", %d bytes, then %d\n", length, ((unsigned char *)&address)[4]);
    length = -1;
    printf("negative length: %s\n", result(getpeername(it, pointer, &length)));
    close(it), close(file);
}

static void of_other_kinds(void) {
    int it = socket(AF_INET6, SOCK_STREAM, 0);
    struct sockaddr_in6 mapped = {.sin6_family = AF_INET6, .sin6_port = htons(echo_port)};
    inet_pton(AF_INET6, "::ffff:127.0.0.1", &mapped.sin6_addr);
    struct sockaddr_in6 found;
    socklen_t length = sizeof found;
    printf("mapped: %s\n", result(connect(it, (struct sockaddr *)&mapped, sizeof mapped)));
    getpeername(it, (struct sockaddr *)&found, &length);
    printf("length %d, same %d, %s\n", length, !memcmp(&found, &mapped, sizeof found), echoes(it));
    close(it);
    it = tcp(0);
    struct sockaddr_in address = to(echo_port);
    struct sockaddr *const pointer = (struct sockaddr *)&address;
    // Either the data go with the first packet, or the program connects.
    if (sendto(it, "x", 1, MSG_FASTOPEN, pointer, sizeof address) < 0) {
        dial(it, echo_port);
        send(it, "x", 1, 0);
    }
    char byte;
    printf("fast open: %zd\n", recv(it, &byte, 1, 0));
    printf("%s\n", peer(it));
    close(it);
    int one = socket(AF_INET, SOCK_DGRAM, 0), other = socket(AF_INET, SOCK_DGRAM, 0);
    address = to(0);
    bind(one, pointer, sizeof address);
    printf("datagram: %s", result(dial(other, port_of(one))));
    printf(", %zd", send(other, "abc", 3, 0));
    char bytes[3];
    printf(", %zd\n", recv(one, bytes, 3, 0));
    close(one), close(other);
}

static void wake(int signal) {}

static void with_signals(void) {
    struct sigaction action = {.sa_handler = wake};
    sigaction(SIGALRM, &action, 0);
    int listener = tcp(0);
    struct sockaddr_in address = to(0);
    bind(listener, (struct sockaddr *)&address, sizeof address);
    listen(listener, 1);
    struct itimerval soon = {.it_value = {.tv_usec = 200000}};
    setitimer(ITIMER_REAL, &soon, 0);
    printf("accept: %s\n", result(accept(listener, 0, 0)));
    close(listener);
}

int main(int count, char **words) {
    setvbuf(stdout, 0, _IOLBF, 0);
    if (count == 3 && !strcmp(words[1], "use")) {
        // The port is that of the peer, whatever it is.
        struct sockaddr_in address;
        socklen_t length = sizeof address;
        int socket = atoi(words[2]);
        getpeername(socket, (struct sockaddr *)&address, &length);
        echo_port = ntohs(address.sin_port);
        printf("in another program: %s %s\n", peer(socket), echoes(socket));
        return 0;
    }
    if (count != 3)
        return 2;
    echo_port = atoi(words[1]), closed_port = atoi(words[2]);
    by_blocking();
    without_blocking();
    with_processes(words[0]);
    of_a_server();
    with_wrong_arguments();
    of_other_kinds();
    with_signals();
    pthread_t threads[THREADS];
    long works = 0;
    for (int i = 0; i < THREADS; i++)
        pthread_create(&threads[i], 0, one_of_many, 0);
    for (int i = 0; i < THREADS; i++) {
        void *value;
        pthread_join(threads[i], &value);
        works += (long)value;
    }
    printf("threads: %ld of %d\n", works, THREADS);
    return 0;
}
