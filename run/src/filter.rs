//! Which system calls the kernel hands over: a program for its filter, made from a table.
//!
//! The kernel runs the program at each system call, so everything that is not about sockets
//! is allowed after some comparisons. Only the program's arguments can be looked at, not the
//! memory to which they point.

use libc::{c_long, sock_filter};

/// The architecture for which this program is compiled (`AUDIT_ARCH_...` of linux/audit.h).
#[cfg(target_arch = "x86_64")]
pub(crate) const ARCHITECTURE: u32 = 0xC000_003E;
/// The architecture for which this program is compiled (`AUDIT_ARCH_...` of linux/audit.h).
#[cfg(target_arch = "aarch64")]
pub(crate) const ARCHITECTURE: u32 = 0xC000_00B7;

/// Calls of the x32 ABI have this bit in their number.
#[cfg(target_arch = "x86_64")]
const X32: u32 = 0x4000_0000;

/// The calls that are always handed over.
const ALWAYS: [c_long; 7] = [
    libc::SYS_connect,
    libc::SYS_bind,
    libc::SYS_listen,
    libc::SYS_accept,
    libc::SYS_accept4,
    libc::SYS_getsockname,
    libc::SYS_getpeername,
];

/// Flags of the one sendmsg(2) that must not be handed over: it gives the listener to the
/// supervisor, which could not answer before.
/// They have no meaning for Unix sockets, and no program uses them (`MSG_SYN` and `MSG_RST`).
pub(crate) const HAND_OVER: u32 = 0x1400;

// Offsets in the structure that the filter sees (struct seccomp_data).
const NUMBER: u32 = 0;
const ARCHITECTURE_FIELD: u32 = 4;

/// The lower half of an argument.
const fn low(argument: u32) -> u32 {
    16 + 8 * argument
}

/// The upper half of an argument.
const fn high(argument: u32) -> u32 {
    low(argument) + 4
}

/// The program of the filter. With `datagrams`, sendmsg(2) and sendmmsg(2) are handed over too:
/// they may have an address, which the filter cannot see.
/// With `sockets`, socket(2) is handed over for the sockets that may be connected later.
pub(crate) fn program(datagrams: bool, sockets: bool) -> Vec<sock_filter> {
    let mut program = vec![load(ARCHITECTURE_FIELD)];
    // The supervisor says which program it is, and ends it.
    program.extend(unless_equal(ARCHITECTURE, vec![notify()]));
    program.push(load(NUMBER));
    #[cfg(target_arch = "x86_64")]
    program.extend(if_any_bit(X32, vec![fail(libc::ENOSYS)]));
    for call in ALWAYS {
        program.extend(for_call(call, vec![notify()]));
    }
    program.extend(for_call(libc::SYS_getsockopt, of_error_option()));
    // Requests of a ring are executed without any system call that a filter sees.
    program.extend(for_call(libc::SYS_io_uring_setup, vec![fail(libc::ENOSYS)]));
    program.extend(for_call(libc::SYS_socket, of_socket(sockets)));
    let with_address = [
        vec![load(low(4))],
        unless_equal(0, vec![notify()]),
        vec![load(high(4))],
        unless_equal(0, vec![notify()]),
        vec![allow()],
    ];
    program.extend(for_call(
        libc::SYS_sendto,
        of_flags(3, with_address.concat()),
    ));
    let message = vec![if datagrams { notify() } else { allow() }];
    let hand_over = if_equal(HAND_OVER, vec![allow()]);
    let one_message = [hand_over, message.clone()].concat();
    program.extend(for_call(libc::SYS_sendmsg, of_flags(2, one_message)));
    program.extend(for_call(libc::SYS_sendmmsg, of_flags(3, message)));
    program.push(allow());
    program
}

/// getsockopt(2): only `SO_ERROR` is handed over.
fn of_error_option() -> Vec<sock_filter> {
    [
        vec![load(low(1))],
        unless_equal(libc::SOL_SOCKET as u32, vec![allow()]),
        vec![load(low(2))],
        unless_equal(libc::SO_ERROR as u32, vec![allow()]),
        vec![notify()],
    ]
    .concat()
}

/// socket(2): handed over if it makes packets of its own or sends ICMP; with `all`, also a socket
/// of the Internet, and a Unix socket, by which a program may ask for names.
fn of_socket(all: bool) -> Vec<sock_filter> {
    if all {
        return [
            vec![load(low(0))],
            if_equal(libc::AF_PACKET as u32, vec![notify()]),
            if_equal(libc::AF_INET as u32, vec![notify()]),
            if_equal(libc::AF_INET6 as u32, vec![notify()]),
            if_equal(libc::AF_UNIX as u32, vec![notify()]),
            vec![allow()],
        ]
        .concat();
    }
    let raw = if_equal(libc::SOCK_RAW as u32, vec![notify()]);
    let internet = [
        vec![load(low(1)), and(0xf)],
        raw,
        vec![load(low(2))],
        if_equal(libc::IPPROTO_ICMP as u32, vec![notify()]),
        if_equal(libc::IPPROTO_ICMPV6 as u32, vec![notify()]),
        vec![allow()],
    ]
    .concat();
    [
        vec![load(low(0))],
        if_equal(libc::AF_PACKET as u32, vec![notify()]),
        if_equal(libc::AF_INET as u32, internet.clone()),
        if_equal(libc::AF_INET6 as u32, internet),
        vec![allow()],
    ]
    .concat()
}

/// A call that sends: data in the first packet of a connection (TCP Fast Open) would go around
/// the proxy. Programs then call connect(2).
fn of_flags(argument: u32, otherwise: Vec<sock_filter>) -> Vec<sock_filter> {
    let fast_open = if_any_bit(libc::MSG_FASTOPEN as u32, vec![fail(libc::EOPNOTSUPP)]);
    [vec![load(low(argument))], fast_open, otherwise].concat()
}

/// These instructions, if the call has this number.
fn for_call(number: c_long, then: Vec<sock_filter>) -> Vec<sock_filter> {
    if_equal(number as u32, then)
}

/// These instructions, if the value that was loaded last is this one. They must end the program.
fn if_equal(value: u32, then: Vec<sock_filter>) -> Vec<sock_filter> {
    let skip = then.len() as u8;
    [vec![jump(libc::BPF_JEQ, value, 0, skip)], then].concat()
}

fn unless_equal(value: u32, then: Vec<sock_filter>) -> Vec<sock_filter> {
    let skip = then.len() as u8;
    [vec![jump(libc::BPF_JEQ, value, skip, 0)], then].concat()
}

fn if_any_bit(bits: u32, then: Vec<sock_filter>) -> Vec<sock_filter> {
    let skip = then.len() as u8;
    [vec![jump(libc::BPF_JSET, bits, 0, skip)], then].concat()
}

fn load(offset: u32) -> sock_filter {
    instruction(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, offset, 0, 0)
}

fn and(bits: u32) -> sock_filter {
    instruction(libc::BPF_ALU | libc::BPF_AND | libc::BPF_K, bits, 0, 0)
}

fn jump(condition: u32, value: u32, then: u8, otherwise: u8) -> sock_filter {
    instruction(
        libc::BPF_JMP | condition | libc::BPF_K,
        value,
        then,
        otherwise,
    )
}

fn end(action: u32) -> sock_filter {
    instruction(libc::BPF_RET | libc::BPF_K, action, 0, 0)
}

fn allow() -> sock_filter {
    end(libc::SECCOMP_RET_ALLOW)
}

fn notify() -> sock_filter {
    end(libc::SECCOMP_RET_USER_NOTIF)
}

fn fail(error: i32) -> sock_filter {
    end(libc::SECCOMP_RET_ERRNO | error as u32)
}

const fn instruction(code: u32, k: u32, jt: u8, jf: u8) -> sock_filter {
    sock_filter {
        code: code as u16,
        jt,
        jf,
        k,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the kernel does with this call, by running the program.
    fn verdict(program: &[sock_filter], architecture: u32, number: c_long, args: [u64; 6]) -> u32 {
        let mut data = Vec::new();
        data.extend((number as u32).to_ne_bytes());
        data.extend(architecture.to_ne_bytes());
        data.extend(0_u64.to_ne_bytes());
        args.iter().for_each(|it| data.extend(it.to_ne_bytes()));
        let (mut next, mut value) = (0, 0_u32);
        loop {
            let it = program[next];
            next += 1;
            let k = it.k as usize;
            let jump = |holds: bool| usize::from(if holds { it.jt } else { it.jf });
            match u32::from(it.code) {
                0x20 => value = u32::from_ne_bytes(data[k..k + 4].try_into().unwrap()),
                0x54 => value &= it.k,
                0x15 => next += jump(value == it.k),
                0x45 => next += jump(value & it.k != 0),
                0x06 => return it.k,
                code => panic!("instruction {code:#x}"),
            }
        }
    }

    /// A call with its arguments, and what happens to it without and with datagrams.
    type Case = (c_long, [u64; 6], u32, u32);

    fn cases() -> Vec<Case> {
        let notify = libc::SECCOMP_RET_USER_NOTIF;
        let allow = libc::SECCOMP_RET_ALLOW;
        let error = |it: i32| libc::SECCOMP_RET_ERRNO | it as u32;
        let fast_open = libc::MSG_FASTOPEN as u64;
        let [inet, inet6, unix, packet, netlink] = [2_u64, 10, 1, 17, 16];
        let closed_dgram = 2 | libc::SOCK_CLOEXEC as u64;
        let closed_raw = 3 | libc::SOCK_CLOEXEC as u64;
        vec![
            (libc::SYS_connect, [0; 6], notify, notify),
            (libc::SYS_accept4, [0; 6], notify, notify),
            (libc::SYS_read, [0; 6], allow, allow),
            (libc::SYS_getsockopt, [3, 1, 4, 0, 0, 0], notify, notify),
            (libc::SYS_getsockopt, [3, 1, 3, 0, 0, 0], allow, allow),
            (libc::SYS_getsockopt, [3, 6, 4, 0, 0, 0], allow, allow),
            (libc::SYS_io_uring_setup, [0; 6], error(38), error(38)),
            (libc::SYS_socket, [inet, 1, 0, 0, 0, 0], allow, allow),
            (
                libc::SYS_socket,
                [inet, closed_dgram, 0, 0, 0, 0],
                allow,
                allow,
            ),
            (
                libc::SYS_socket,
                [inet, closed_dgram, 1, 0, 0, 0],
                notify,
                notify,
            ),
            (
                libc::SYS_socket,
                [inet6, closed_raw, 0, 0, 0, 0],
                notify,
                notify,
            ),
            (libc::SYS_socket, [packet, 2, 0, 0, 0, 0], notify, notify),
            (libc::SYS_socket, [netlink, 3, 0, 0, 0, 0], allow, allow),
            (libc::SYS_socket, [unix, 1, 0, 0, 0, 0], allow, allow),
            (libc::SYS_sendto, [3, 0, 0, 0, 0, 0], allow, allow),
            (libc::SYS_sendto, [3, 0, 0, 0, 1, 0], notify, notify),
            (libc::SYS_sendto, [3, 0, 0, 0, 1 << 32, 0], notify, notify),
            (
                libc::SYS_sendto,
                [3, 0, 0, fast_open, 1, 0],
                error(95),
                error(95),
            ),
            (libc::SYS_sendmsg, [3, 0, 0, 0, 0, 0], allow, notify),
            (
                libc::SYS_sendmsg,
                [3, 0, HAND_OVER.into(), 0, 0, 0],
                allow,
                allow,
            ),
            (
                libc::SYS_sendmsg,
                [3, 0, fast_open, 0, 0, 0],
                error(95),
                error(95),
            ),
            (
                libc::SYS_sendmmsg,
                [3, 0, 1, fast_open, 0, 0],
                error(95),
                error(95),
            ),
        ]
    }

    #[test]
    fn k15_the_filter_hands_over_the_calls_of_the_table_and_no_others() {
        for (number, args, in_general, with_datagrams) in cases() {
            for (datagrams, expected) in [(false, in_general), (true, with_datagrams)] {
                let found = verdict(&program(datagrams, false), ARCHITECTURE, number, args);
                assert_eq!(found, expected, "{number} {args:?} {datagrams}");
            }
        }
        let notify = libc::SECCOMP_RET_USER_NOTIF;
        assert_eq!(
            verdict(&program(false, false), 0x4000_0003, 1, [0; 6]),
            notify
        );
        #[cfg(target_arch = "x86_64")]
        assert_eq!(
            verdict(
                &program(false, false),
                ARCHITECTURE,
                c_long::from(X32 | 1),
                [0; 6]
            ),
            libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32
        );
    }
}
