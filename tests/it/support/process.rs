//! What /proc says about a running process: threads, descriptors, sockets, memory.

use std::fs;
use std::path::PathBuf;
use std::thread;

use threadsocks::server::STACK_SIZE;

/// The resources of the server process at one moment.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Resources {
    /// Busy threads: all but the idle ones, and those that a changed file has started.
    pub(crate) threads: usize,
    /// Idle threads of the pool; they exit after a time without work.
    idle: usize,
    pub(crate) descriptors: usize,
    /// The descriptors that are sockets.
    sockets: usize,
    /// Memory mappings: lines of /proc/PID/maps.
    mappings: usize,
}

impl Resources {
    /// The resources that this process holds now.
    pub(crate) fn of(pid: u32) -> Resources {
        let names = threads(pid);
        let idle = names.iter().filter(|name| *name == "idle").count();
        let descriptors = descriptors(pid);
        let is_socket = |link: &&PathBuf| link.to_string_lossy().starts_with("socket:");
        let maps = fs::read_to_string(format!("/proc/{pid}/maps"));
        Resources {
            threads: names.len() - idle - names.iter().filter(|name| *name == "files").count(),
            idle,
            descriptors: descriptors.len(),
            sockets: descriptors.iter().filter(is_socket).count(),
            mappings: maps.expect("a running process").lines().count(),
        }
    }

    /// Whether nothing was added since the start, but for idle threads and what the C
    /// library keeps.
    pub(crate) fn is_within(&self, start: &Resources) -> bool {
        self.threads <= start.threads
            && self.descriptors <= start.descriptors
            && self.sockets <= start.sockets
            && self.mappings <= start.mappings + self.spare_mappings()
    }

    /// Mappings that are no leak. An idle thread has four: stack, signal stack, and
    /// a guard page for each. glibc caches up to 40 MiB of stacks, two mappings each,
    /// and has up to eight arenas for each core, two mappings each. The last 40 are
    /// for the libraries that getaddrinfo loads.
    fn spare_mappings(&self) -> usize {
        let cores = thread::available_parallelism().map_or(1, usize::from);
        4 * self.idle + 2 * ((40 << 20) / STACK_SIZE) + 2 * 8 * cores + 40
    }
}

/// The targets of its descriptors, such as `socket:[4711]`.
fn descriptors(pid: u32) -> Vec<PathBuf> {
    let folder = fs::read_dir(format!("/proc/{pid}/fd"));
    let links = folder.expect("a running process").flatten();
    // A descriptor can be closed between the two calls.
    links
        .filter_map(|entry| fs::read_link(entry.path()).ok())
        .collect()
}

/// The names of all threads, sorted.
pub(crate) fn threads(pid: u32) -> Vec<String> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task"));
    let tasks = tasks.expect("a running process").flatten();
    // A thread can exit between the two calls.
    let names = tasks.flat_map(|task| fs::read_to_string(task.path().join("comm")));
    let mut names: Vec<String> = names.map(|name| name.trim().to_owned()).collect();
    names.sort();
    names
}

/// Searches these tables of /proc/PID/net for a socket of the process with
/// this local port and a matching state.
pub(crate) fn has_socket(
    pid: u32,
    tables: [&str; 2],
    port: u16,
    is_state: impl Fn(&str) -> bool,
) -> bool {
    let own = descriptors(pid);
    let matches = |row: &str| {
        // proc(5): sl, local_address, rem_address, st, ...; the tenth field is the inode.
        let fields: Vec<&str> = row.split_whitespace().collect();
        let [_, local, _, state, _, _, _, _, _, inode, ..] = *fields.as_slice() else {
            return false;
        };
        let socket = PathBuf::from(format!("socket:[{inode}]"));
        is_state(state) && local.ends_with(&format!(":{port:04X}")) && own.contains(&socket)
    };
    tables.iter().any(|table| {
        let rows = fs::read_to_string(format!("/proc/{pid}/net/{table}"));
        let rows = rows.unwrap_or_default();
        rows.lines().any(&matches)
    })
}

/// A number from /proc/PID/status, such as `VmRSS` in kB.
pub(crate) fn status(pid: u32, key: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(key));
    let value = line.and_then(|line| line.strip_prefix(':')).unwrap();
    value.split_whitespace().next().unwrap().parse().unwrap()
}
