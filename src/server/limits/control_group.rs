//! What the control groups of this process grant it, in version 1 and version 2.
//!
//! A limit of a group holds for all groups below it together. So each group from the one of
//! this process up to the root of the mounted tree is read. `/proc/self/cgroup` names the
//! group. `/proc/self/mountinfo` says where its tree is mounted, and which group is the
//! root there: in a container it may be a group of the host (cgroups(7)).

use super::kernel_files::{KernelFiles, Share};

/// The namespace of control groups that the kernel starts with (PROC_CGROUP_INIT_INO). Its
/// root group has no limits.
const INITIAL_NAMESPACE: &str = "cgroup:[4026531835]";

/// The group of this process for one controller, and all groups above it.
struct Groups {
    /// Their folders, each before the one above it; of every mount of the tree.
    folders: Vec<String>,
    /// The controller is in the hierarchy of version 2.
    is_version_2: bool,
    /// The process is in a group that may have limits, and its folder cannot be found.
    is_hidden: bool,
}

/// The share of memory that each group leaves to this process.
pub(super) struct MemoryShares {
    /// In bytes.
    pub(super) shares: Vec<Share>,
    /// The group of this process may have a limit that is not in `shares`.
    pub(super) is_hidden: bool,
}

/// The share of threads that each group leaves to this process. Its own threads do not
/// count as used.
pub(super) fn threads(files: &KernelFiles, own: u64) -> Vec<Share> {
    let share = |group: &String| {
        let current = files.number(&format!("{group}/pids.current"));
        Some(Share {
            limit: files.number(&format!("{group}/pids.max"))?,
            used: current.unwrap_or(0).saturating_sub(own),
        })
    };
    let groups = Groups::of_controller(files, "pids");
    groups.folders.iter().filter_map(share).collect()
}

/// The share of memory in bytes that each group leaves to this process.
pub(super) fn memory(files: &KernelFiles) -> MemoryShares {
    let groups = Groups::of_controller(files, "memory");
    let (limits, usage, droppable) = match groups.is_version_2 {
        // Above memory.high the kernel delays the process, by seconds at a time.
        true => (
            &["memory.max", "memory.high"][..],
            "memory.current",
            "inactive_file",
        ),
        false => (
            &["memory.limit_in_bytes"][..],
            "memory.usage_in_bytes",
            "total_inactive_file",
        ),
    };
    let share = |group: &String| {
        let limits = limits.iter();
        let limits = limits.filter_map(|name| files.number(&format!("{group}/{name}")));
        Some(Share {
            limit: limits.min()?,
            used: memory_in_use(files, group, usage, droppable),
        })
    };
    MemoryShares {
        shares: groups.folders.iter().filter_map(share).collect(),
        is_hidden: groups.is_hidden,
    }
}

/// Bytes in use, without file pages that the kernel can drop at any time; 0 if unknown.
fn memory_in_use(files: &KernelFiles, group: &str, usage: &str, droppable: &str) -> u64 {
    let in_use = files.number(&format!("{group}/{usage}")).unwrap_or(0);
    let droppable = files.field(&format!("{group}/memory.stat"), droppable);
    in_use.saturating_sub(droppable.unwrap_or(0))
}

impl Groups {
    fn of_controller(files: &KernelFiles, controller: &str) -> Groups {
        let mounts = files.text("/proc/self/mountinfo");
        let lines = files.text("/proc/self/cgroup");
        let mut groups = Groups {
            folders: Vec::new(),
            is_version_2: false,
            // A kernel without control groups has the first file and not the second.
            is_hidden: mounts.is_none(),
        };
        let lines = lines.unwrap_or_default();
        // Each controller is in one hierarchy: that of version 2, if no other has it.
        let path = |name| lines.lines().find_map(|line| path_in(line, name));
        let version_1 = path(controller);
        let Some(path) = version_1.or_else(|| path("")) else {
            return groups;
        };
        groups.is_version_2 = version_1.is_none();
        let version_1 = version_1.map(|_| controller);
        let is_root =
            path == "/" && files.link("/proc/self/ns/cgroup").as_deref() == Some(INITIAL_NAMESPACE);
        let mut is_found = is_root;
        for line in mounts.unwrap_or_default().lines() {
            let folders = folders(line, version_1, path).unwrap_or_default();
            // A file of each group. Another file system may cover the tree.
            let own = folders.first();
            is_found |= own.is_some_and(|own| files.has(&format!("{own}/cgroup.procs")));
            groups.folders.extend(folders);
        }
        groups.is_hidden = !is_found;
        groups
    }
}

/// The path in this line of `/proc/self/cgroup` (`4:memory:/group`, `0::/group`) if it is
/// about this controller; the hierarchy of version 2 has an empty one.
fn path_in<'a>(line: &'a str, controller: &str) -> Option<&'a str> {
    let (_, line) = line.split_once(':')?;
    let (controllers, path) = line.split_once(':')?;
    let is_this = controllers.split(',').any(|it| it == controller);
    is_this.then_some(path)
}

/// The folders of the group with this path and of all groups above it, in the mount of this
/// line of `/proc/self/mountinfo`. `None` if it mounts something else, or other groups.
fn folders(line: &str, version_1: Option<&str>, path: &str) -> Option<Vec<String>> {
    let (mount, file_system) = line.split_once(" - ")?;
    let (mut mount, mut file_system) = (mount.split(' '), file_system.split(' '));
    let (kind, options) = (file_system.next()?, file_system.nth(1)?);
    let is_this = match version_1 {
        Some(controller) => kind == "cgroup" && options.split(',').any(|it| it == controller),
        None => kind == "cgroup2",
    };
    let (root, mount_point) = (unescape(mount.nth(3)?), unescape(mount.next()?));
    // A path with ".." is outside the namespace of control groups.
    if !is_this || root.starts_with("/..") || path.starts_with("/..") {
        return None;
    }
    let mut below = path.strip_prefix(root.trim_end_matches('/'))?;
    if !(below.is_empty() || below.starts_with('/')) {
        return None;
    }
    below = below.trim_end_matches('/');
    let mut folders = vec![format!("{mount_point}{below}")];
    while let Some(end) = below.rfind('/') {
        below = &below[..end];
        folders.push(format!("{mount_point}{below}"));
    }
    Some(folders)
}

/// The kernel writes blanks and backslashes in paths as octal numbers.
fn unescape(path: &str) -> String {
    let path = path.replace("\\040", " ").replace("\\011", "\t");
    path.replace("\\012", "\n").replace("\\134", "\\")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::limits::kernel_files::tests::FakeFiles;

    const MB: u64 = 1 << 20;

    /// Where the trees usually are: version 2, and both.
    const VERSION_2: &str =
        "31 24 0:27 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate\n";
    const BOTH: &str = "31 24 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755\n\
        35 31 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n\
        40 31 0:36 / /sys/fs/cgroup/pids rw - cgroup cgroup rw,cpu,pids\n\
        41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";

    fn tightest(shares: &[Share]) -> Option<u64> {
        shares.iter().map(|share| share.free()).min()
    }

    /// The free memory in MB, `None` without a limit; and whether the group is hidden.
    fn free_memory(fake: &FakeFiles) -> (Option<u64>, bool) {
        let MemoryShares { shares, is_hidden } = memory(&fake.files());
        (tightest(&shares).map(|bytes| bytes / MB), is_hidden)
    }

    #[test]
    fn s17_every_group_above_counts() {
        let fake = FakeFiles::new(&[
            ("/proc/self/mountinfo", VERSION_2),
            ("/proc/self/cgroup", "0::/a/b/c\n"),
            ("/sys/fs/cgroup/a/b/c/cgroup.procs", "1\n"),
            ("/sys/fs/cgroup/a/b/c/memory.max", "max\n"),
            ("/sys/fs/cgroup/a/b/memory.max", "104857600\n"),
            ("/sys/fs/cgroup/a/memory.max", "209715200\n"),
            ("/sys/fs/cgroup/a/b/c/pids.max", "100\n"),
            ("/sys/fs/cgroup/a/pids.max", "90\n"),
        ]);
        assert_eq!(free_memory(&fake), (Some(100), false));
        assert_eq!(tightest(&threads(&fake.files(), 0)), Some(90));
        // The siblings of the group use most of what the group above may use.
        fake.write("/sys/fs/cgroup/a/memory.current", "188743680\n");
        assert_eq!(free_memory(&fake), (Some(20), false));
        // Half of it is file pages that no process uses.
        fake.write(
            "/sys/fs/cgroup/a/memory.stat",
            "anon 1\ninactive_file 94371840\n",
        );
        assert_eq!(free_memory(&fake), (Some(100), false));
        fake.write("/sys/fs/cgroup/a/b/c/memory.high", "52428800\n");
        assert_eq!(free_memory(&fake), (Some(50), false));
    }

    #[test]
    fn s41_own_threads_of_a_group_count_once() {
        let fake = FakeFiles::new(&[
            ("/proc/self/mountinfo", VERSION_2),
            ("/proc/self/cgroup", "0::/a\n"),
            ("/sys/fs/cgroup/a/pids.max", "90\n"),
            ("/sys/fs/cgroup/a/pids.current", "50\n"),
        ]);
        assert_eq!(tightest(&threads(&fake.files(), 4)), Some(44));
    }

    #[test]
    fn s17_version_1_has_a_tree_for_each_controller() {
        let fake = FakeFiles::new(&[
            ("/proc/self/mountinfo", BOTH),
            ("/proc/self/cgroup", "9:cpu,pids:/x\n4:memory:/y/z\n0::/\n"),
            ("/sys/fs/cgroup/memory/y/z/cgroup.procs", "1\n"),
            (
                "/sys/fs/cgroup/memory/y/z/memory.limit_in_bytes",
                "9223372036854771712\n",
            ),
            (
                "/sys/fs/cgroup/memory/y/memory.limit_in_bytes",
                "100663296\n",
            ),
            (
                "/sys/fs/cgroup/memory/y/memory.usage_in_bytes",
                "33554432\n",
            ),
            (
                "/sys/fs/cgroup/memory/y/memory.stat",
                "total_inactive_file 0\n",
            ),
            ("/sys/fs/cgroup/pids/x/pids.max", "70\n"),
        ]);
        assert_eq!(free_memory(&fake), (Some(64), false));
        assert_eq!(tightest(&threads(&fake.files(), 0)), Some(70));
    }

    /// A mount of a version 1 tree with this root and at this place.
    fn mount_of_memory(root: &str, mount_point: &str) -> String {
        format!("35 31 0:32 {root} {mount_point} rw - cgroup cgroup rw,memory\n")
    }

    #[test]
    fn s40_the_group_is_found_below_the_root_of_the_mount() {
        const LIMIT: &str = "memory.limit_in_bytes";
        for (path, root, mount_point, folder) in [
            (
                "/a",
                "/",
                "/sys/fs/cgroup/memory",
                "/sys/fs/cgroup/memory/a",
            ),
            ("/", "/", "/sys/fs/cgroup/memory", "/sys/fs/cgroup/memory"),
            // A container that sees paths of its host: its own group, and one below.
            (
                "/docker/0123",
                "/docker/0123",
                "/sys/fs/cgroup/memory",
                "/sys/fs/cgroup/memory",
            ),
            ("/docker/0123/sub", "/docker/0123", "/m", "/m/sub"),
            // The tree is mounted elsewhere.
            (
                "/a",
                "/",
                "/dev/cgroup\\040x/memory",
                "/dev/cgroup x/memory/a",
            ),
        ] {
            let fake = FakeFiles::new(&[
                ("/proc/self/mountinfo", &mount_of_memory(root, mount_point)),
                ("/proc/self/cgroup", &format!("4:memory:{path}\n0::/\n")),
                (&format!("{folder}/cgroup.procs"), "1\n"),
                (&format!("{folder}/{LIMIT}"), "100663296\n"),
            ]);
            assert_eq!(free_memory(&fake), (Some(96), false), "{path}");
        }
    }

    #[test]
    fn s40_a_group_that_cannot_be_seen_is_reported() {
        let group = "4:memory:/docker/0123\n0::/\n";
        let mount = |root| mount_of_memory(root, "/m");
        for (mounts, group) in [
            // Nothing is mounted, or another group, or one whose name starts alike.
            ("", group),
            (VERSION_2, group),
            (&mount("/docker/4567"), group),
            (&mount("/docker/01"), group),
            // Another file system covers the tree.
            (&mount("/"), group),
            // The mount was made in another namespace of control groups.
            (&mount("/.."), "4:memory:/\n"),
            (&mount("/"), "4:memory:/../x\n"),
            ("", "0::/\n"),
        ] {
            let fake = FakeFiles::new(&[
                ("/proc/self/mountinfo", mounts),
                ("/proc/self/cgroup", group),
                ("/m/cgroup.procs", "1\n"),
            ]);
            assert_eq!(free_memory(&fake), (None, true), "{mounts} {group}");
        }
        // Without /proc, the process may be in any group.
        let fake = FakeFiles::new(&[]);
        assert_eq!(free_memory(&fake), (None, true));
        // A kernel without control groups, or without a controller for memory.
        fake.write("/proc/self/mountinfo", BOTH);
        assert_eq!(free_memory(&fake), (None, false));
        fake.write("/proc/self/cgroup", "9:cpu,pids:/x\n");
        assert_eq!(free_memory(&fake), (None, false));
        // The first group of the system has no limit.
        fake.write("/proc/self/cgroup", "0::/\n");
        fake.write("/proc/self/mountinfo", "");
        assert_eq!(free_memory(&fake), (None, true));
        fake.link("/proc/self/ns/cgroup", INITIAL_NAMESPACE);
        assert_eq!(free_memory(&fake), (None, false));
    }
}
