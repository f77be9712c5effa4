//! What the system grants this process: descriptors, threads, mappings and memory.

use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit, setrlimit};

use super::address_space::AddressSpace;
use super::kernel_files::{KernelFiles, Share};
#[cfg(target_os = "linux")]
use super::limited_by::LimitedBy;
use super::limited_by::{MemoryError, MemorySource};
use super::other_memory::OtherMemory;

/// The limits of the system that sessions can reach. `None`: there is no such limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Machine {
    /// What the server needs beside its sessions, as a number of sessions.
    pub(super) other_sessions: u64,
    /// Open files (RLIMIT_NOFILE).
    pub(super) descriptors: Option<u64>,
    pub(super) mappings: Option<Mappings>,
    /// The most arenas that the allocator makes.
    pub(super) arenas: u64,
    /// The tightest of the limits on threads.
    pub(super) threads: Option<Share>,
    /// The tightest of the limits on memory, in bytes.
    pub(super) memory: Option<(Share, MemorySource)>,
    /// The control group of this process may have a limit on memory that cannot be read.
    pub(super) has_hidden_group: bool,
    /// Address space in bytes (RLIMIT_AS).
    pub(super) address_space: Option<AddressSpace>,
    /// Writable memory in bytes, used or not (RLIMIT_DATA).
    pub(super) data: Option<Share>,
}

/// The limit on memory mappings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Mappings {
    pub(super) limit: u64,
    /// vm.max_map_count cannot be read, so `limit` is the kernel's default.
    pub(super) is_default: bool,
}

/// Memory in bytes of the program at its start, without rules and users. All else is rules
/// and users.
#[cfg(target_os = "linux")]
const OWN_MEMORY: u64 = 1 << 20;

impl Machine {
    /// Raises the soft limit on open files to the hard one, then reads all limits. What a reload
    /// of the files and `other` will need counts as used.
    pub(super) fn read(other: OtherMemory) -> Machine {
        raise_descriptors();
        Machine::from_files(&KernelFiles::of_this_system(), other)
    }

    #[cfg(target_os = "linux")]
    pub(super) fn from_files(files: &KernelFiles, other: OtherMemory) -> Machine {
        // During a reload the process has its rules and users twice, and the parser needs
        // as much again (measured: 0.7 times).
        let loaded = used_bytes(files, "RssAnon:").saturating_sub(OWN_MEMORY);
        let later = loaded.saturating_mul(2).saturating_add(other.heap());
        let groups = control_group::memory(files);
        Machine {
            other_sessions: 0,
            descriptors: soft_limit(Resource::RLIMIT_NOFILE),
            mappings: Some(mappings(files)),
            arenas: super::arenas::max_arenas(),
            threads: threads(files),
            memory: memory(files, groups.shares, later + other.hash),
            has_hidden_group: groups.is_hidden,
            address_space: address_space(files).map(|share| AddressSpace { share, later }),
            data: data(files).map(|Share { limit, used }| Share {
                limit,
                used: used + later,
            }),
        }
    }

    /// The smallest amount of free memory, in bytes, by whatever limit.
    pub(super) fn free_memory(&self) -> u64 {
        let memory = self.memory.map(|(share, _)| share.free());
        let space = self.address_space.map(|it| it.for_sessions(self.arenas));
        let data = self.data.map(Share::free);
        let all = [memory, space, data].into_iter().flatten();
        all.min().unwrap_or(u64::MAX)
    }

    /// On other systems only the descriptors are known. There RLIMIT_NPROC counts processes
    /// and RLIMIT_DATA no stacks, and the limits in files are those of Linux.
    #[cfg(not(target_os = "linux"))]
    pub(super) fn from_files(_: &KernelFiles, _: OtherMemory) -> Machine {
        Machine {
            other_sessions: 0,
            descriptors: soft_limit(Resource::RLIMIT_NOFILE),
            mappings: None,
            arenas: 0,
            threads: None,
            memory: None,
            has_hidden_group: false,
            address_space: None,
            data: None,
        }
    }
}

/// Raises the soft limit on open files to the hard one. The soft limit is usually 1024,
/// for programs that use select(2), and the hard limit far higher.
fn raise_descriptors() {
    if let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE)
        && soft < hard
    {
        // If this fails, the computation uses the soft limit, which has not changed.
        let _ = setrlimit(Resource::RLIMIT_NOFILE, hard, hard);
    }
}

/// The soft limit on this resource; `None` if it is unlimited or unknown.
fn soft_limit(resource: Resource) -> Option<u64> {
    let (soft, _) = getrlimit(resource).ok()?;
    if soft == RLIM_INFINITY {
        return None;
    }
    #[allow(clippy::useless_conversion, reason = "signed on other systems")]
    u64::try_from(soft).ok()
}

#[cfg(target_os = "linux")]
use {
    super::control_group,
    linux::{address_space, data, mappings, memory, threads, used_bytes},
};

/// Is so much memory left to this process now, in bytes?
///
/// # Errors
///
/// What is left, and the limit.
#[cfg(target_os = "linux")]
pub(super) fn check_memory(files: &KernelFiles, needed: u64) -> Result<(), MemoryError> {
    let memory = memory(files, control_group::memory(files).shares, 0);
    let memory = memory.map(|(share, source)| (share, LimitedBy::Memory(share.limit, source)));
    let space = address_space(files).map(|share| (share, LimitedBy::AddressSpace(share.limit)));
    let data = data(files).map(|share| (share, LimitedBy::Data(share.limit)));
    let limits = [memory, space, data].into_iter().flatten();
    match limits.min_by_key(|(share, _)| share.free()) {
        Some((share, limit)) if share.free() < needed => Err(MemoryError {
            left: share.free(),
            limit,
        }),
        _ => Ok(()),
    }
}

/// No limit is known.
#[cfg(not(target_os = "linux"))]
pub(super) fn check_memory(_: &KernelFiles, _: u64) -> Result<(), MemoryError> {
    Ok(())
}

/// The limits that only Linux has. A file that cannot be read (a chroot without `/proc`,
/// `ProcSubset=pid` of systemd) does not mean that there is no limit.
#[cfg(target_os = "linux")]
mod linux {
    use super::{Mappings, MemorySource, Resource, soft_limit};
    use crate::server::limits::control_group;
    use crate::server::limits::kernel_files::{KernelFiles, Share};

    /// The kernel's default of vm.max_map_count (DEFAULT_MAX_MAP_COUNT).
    const DEFAULT_MAPPINGS: u64 = 65_530;

    /// The kernel's lowest default of kernel.pid_max (PID_MAX_DEFAULT). Machines with more
    /// than 32 processors have more.
    const DEFAULT_THREADS: u64 = 32_768;

    pub(super) fn mappings(files: &KernelFiles) -> Mappings {
        let limit = files.number("/proc/sys/vm/max_map_count");
        Mappings {
            limit: limit.unwrap_or(DEFAULT_MAPPINGS),
            is_default: limit.is_none(),
        }
    }

    /// Threads of this process do not count as used: the server subtracts those it needs.
    ///
    /// The kernel does not enforce RLIMIT_NPROC for root, but an operator who sets it for
    /// root expects it to count.
    pub(super) fn threads(files: &KernelFiles) -> Option<Share> {
        let own = files.field("/proc/self/status", "Threads:").unwrap_or(0);
        let pid_max = files.number("/proc/sys/kernel/pid_max");
        let of_user = soft_limit(Resource::RLIMIT_NPROC);
        let of_system = [
            files.number("/proc/sys/kernel/threads-max"),
            Some(pid_max.unwrap_or(DEFAULT_THREADS)),
        ];
        let used = all_threads(files).unwrap_or(0).saturating_sub(own);
        let of_system = of_system.into_iter().flatten();
        let shares = of_system.map(|limit| Share { limit, used });
        let of_user = of_user.map(|limit| Share {
            limit,
            used: other_threads_of_user(files).unwrap_or(0),
        });
        let groups = control_group::threads(files, own);
        let shares = shares.chain(of_user).chain(groups);
        shares.min_by_key(|share| share.free())
    }

    /// All threads of the system: the fourth field of `/proc/loadavg` is `1/234`, the
    /// runnable ones and all (proc_loadavg(5)).
    fn all_threads(files: &KernelFiles) -> Option<u64> {
        let text = files.text("/proc/loadavg")?;
        let (_, all) = text.split_whitespace().nth(3)?.split_once('/')?;
        all.parse().ok()
    }

    /// The threads of other processes of this user, which count for RLIMIT_NPROC. 0 for
    /// root. Processes that `/proc` does not show are missing.
    pub(super) fn other_threads_of_user(files: &KernelFiles) -> Option<u64> {
        let user = files.field("/proc/self/status", "Uid:")?;
        let own = files.field("/proc/self/status", "Pid:")?;
        if user == 0 {
            return None;
        }
        let processes = files.names("/proc").into_iter();
        let processes = processes.filter_map(|name| name.parse::<u64>().ok());
        let threads = processes.filter(|&process| process != own).map(|process| {
            let status = format!("/proc/{process}/status");
            let is_of_user = files.field(&status, "Uid:") == Some(user);
            is_of_user.then(|| files.field(&status, "Threads:"))?
        });
        Some(threads.flatten().sum())
    }

    /// `later`: bytes that the process needs for other purposes than sessions, and does not
    /// use yet. `groups`: what the control groups leave.
    pub(super) fn memory(
        files: &KernelFiles,
        groups: Vec<Share>,
        later: u64,
    ) -> Option<(Share, MemorySource)> {
        let groups = groups.into_iter().map(|Share { limit, used }| {
            let used = used.saturating_add(later);
            (Share { limit, used }, MemorySource::ControlGroup)
        });
        let system = files.kilobytes("/proc/meminfo", "MemAvailable:");
        let system = system.map(|bytes| (bytes, MemorySource::Available));
        let system = system.or_else(|| {
            let free = nix::sys::sysinfo::sysinfo().ok()?.ram_unused();
            Some((free, MemorySource::Free))
        });
        let system = system.map(|(limit, source)| (Share { limit, used: later }, source));
        groups.chain(system).min_by_key(|(share, _)| share.free())
    }

    /// The address space in bytes (RLIMIT_AS).
    pub(super) fn address_space(files: &KernelFiles) -> Option<Share> {
        let limit = soft_limit(Resource::RLIMIT_AS)?;
        let used = used_bytes(files, "VmSize:");
        Some(Share { limit, used })
    }

    /// Writable memory in bytes, used or not (RLIMIT_DATA).
    pub(super) fn data(files: &KernelFiles) -> Option<Share> {
        let limit = soft_limit(Resource::RLIMIT_DATA)?;
        let used = used_bytes(files, "VmData:");
        Some(Share { limit, used })
    }

    /// Bytes that this process uses already, from this field of /proc/self/status; 0 if
    /// unknown.
    pub(super) fn used_bytes(files: &KernelFiles, field: &str) -> u64 {
        let used = files.kilobytes("/proc/self/status", field);
        used.unwrap_or(0)
    }
}

#[cfg(test)]
#[cfg(target_os = "linux")]
mod tests {
    use super::*;
    use crate::server::limits::kernel_files::tests::FakeFiles;

    const FILES: [(&str, &str); 4] = [
        ("/proc/sys/vm/max_map_count", "262144\n"),
        ("/proc/sys/kernel/threads-max", "3000\n"),
        ("/proc/sys/kernel/pid_max", "4000\n"),
        ("/proc/meminfo", "MemFree: 1 kB\nMemAvailable:    2048 kB\n"),
    ];

    #[test]
    fn s16_a_limit_that_cannot_be_read_has_its_default() {
        let fake = FakeFiles::new(&FILES);
        let read = Machine::from_files(&fake.files(), OtherMemory::default());
        let mappings = |limit, is_default| Some(Mappings { limit, is_default });
        assert_eq!(read.mappings, mappings(262_144, false));
        assert_eq!(read.threads.map(|it| it.limit), Some(3000));
        let memory = read.memory.map(|(share, source)| (share.limit, source));
        assert_eq!(memory, Some((2 << 20, MemorySource::Available)));

        fake.remove("/proc/sys/vm/max_map_count");
        fake.remove("/proc/sys/kernel/threads-max");
        let read = Machine::from_files(&fake.files(), OtherMemory::default());
        assert_eq!(read.mappings, mappings(65_530, true));
        assert_eq!(read.threads.map(|it| it.limit), Some(4000));

        fake.remove("/proc/sys/kernel/pid_max");
        fake.remove("/proc/meminfo");
        let read = Machine::from_files(&fake.files(), OtherMemory::default());
        assert!(read.threads.is_some_and(|it| it.limit <= 32_768));
        let (share, source) = read.memory.expect("a limit on memory");
        assert_eq!(source, MemorySource::Free);
        assert!(share.limit > 0);
    }

    #[test]
    fn s51_other_uses_are_subtracted_from_the_memory() {
        let fake = FakeFiles::new(&[("/proc/meminfo", "MemAvailable: 102400 kB\n")]);
        let free = |other| Machine::from_files(&fake.files(), other).free_memory();
        let other = OtherMemory {
            hash: 1 << 20,
            logins: 2 << 20,
            trace: 32 << 20,
        };
        assert_eq!(free(OtherMemory::default()), 100 << 20);
        assert_eq!(free(other), 65 << 20);
    }

    #[test]
    fn s47_the_tightest_limit_says_how_much_memory_is_left() {
        let fake = FakeFiles::new(&[
            ("/proc/meminfo", "MemAvailable:    2048 kB\n"),
            (
                "/proc/self/mountinfo",
                "31 24 0:27 / /g rw - cgroup2 cgroup2 rw\n",
            ),
            ("/proc/self/cgroup", "0::/a\n"),
            ("/g/a/cgroup.procs", "1\n"),
            ("/g/a/memory.max", "16777216\n"),
            ("/g/a/memory.current", "15728640\n"),
        ]);
        let left = |needed| check_memory(&fake.files(), needed).map_err(|it| it.to_string());
        assert_eq!(left(1 << 20), Ok(()));
        let of_group = "1 MiB are left of 16 MiB of memory (of its control group)";
        assert_eq!(left((1 << 20) + 1), Err(of_group.to_owned()));
        fake.write("/g/a/memory.current", "1\n");
        assert_eq!(left(2 << 20), Ok(()));
        let of_machine = "2 MiB are left of 2 MiB of memory (that is available)";
        assert_eq!(left((2 << 20) + 1), Err(of_machine.to_owned()));
    }

    #[test]
    fn s41_threads_of_other_processes_count() {
        let status = |user, pid, threads| {
            format!("Name:\tx\nPid:\t{pid}\nUid:\t{user}\t0\t0\t0\nThreads:\t{threads}\n")
        };
        let fake = FakeFiles::new(&[
            ("/proc/self/status", &status(1000, 7, 4)),
            ("/proc/7/status", &status(1000, 7, 4)),
            ("/proc/8/status", &status(1000, 8, 60)),
            ("/proc/9/status", &status(1000, 9, 1)),
            ("/proc/10/status", &status(0, 10, 500)),
            ("/proc/sys/kernel/threads-max", "700\n"),
            ("/proc/loadavg", "0.02 0.10 0.05 1/565 4711\n"),
        ]);
        let files = fake.files();
        assert_eq!(linux::other_threads_of_user(&files), Some(61));
        let share = linux::threads(&files).expect("a limit");
        // This account may have a lower one.
        assert!(share.free() <= 700 - (565 - 4), "{share:?}");
        // The kernel does not enforce the limit for root.
        fake.write("/proc/self/status", &status(0, 7, 4));
        assert_eq!(linux::other_threads_of_user(&files), None);
    }
}
