//! Which permission is missing, in words.

use std::fs;
use std::io;

/// Does the error say that this process may not?
pub(crate) fn is_refusal(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EPERM | libc::EACCES | libc::ENOSYS)
    )
}

/// Why this process may not look into the program's process.
pub(crate) fn reason(what: &str, error: &io::Error) -> String {
    let yama = fs::read_to_string("/proc/sys/kernel/yama/ptrace_scope").unwrap_or_default();
    let advice = match yama.trim() {
        "2" => {
            "the setting kernel.yama.ptrace_scope is 2, so this needs the capability \
             CAP_SYS_PTRACE"
        }
        "3" => "the setting kernel.yama.ptrace_scope is 3, which forbids it until a restart",
        _ => {
            "a container needs the capability SYS_PTRACE for it (docker run --cap-add SYS_PTRACE), \
             and programs that protect their memory, such as ssh-agent, cannot be served"
        }
    };
    format!("{what} is refused ({error}); {advice}")
}

/// Why there is no filter.
pub(crate) fn filter_reason(error: &io::Error) -> String {
    let advice = match error.raw_os_error() {
        Some(libc::EBUSY) => {
            "another supervisor has the system calls of this process already: is threadsocks run \
             started by itself, or by a sandbox?"
        }
        Some(libc::EPERM | libc::EACCES) => {
            "the container or sandbox forbids seccomp(2); it must permit SECCOMP_SET_MODE_FILTER"
        }
        _ => "the kernel must be Linux 5.14 or newer, with CONFIG_SECCOMP_FILTER",
    };
    format!("the kernel does not hand over system calls ({error}); {advice}")
}
