//! What the control groups of this process grant it, in version 1 and version 2.
//!
//! A limit of a group holds for all groups below it together. So each group from the one of
//! this process up to the root of the mounted tree is read. In a container the path of
//! the group may be the path on the host, which does not exist here; then the root of the
//! tree is the group of the container.

use super::kernel_files::{KernelFiles, Share};

/// Where one controller of a hierarchy is mounted by convention, and which line of
/// `/proc/self/cgroup` names the group of this process there.
struct Hierarchy {
    mount: &'static str,
    /// The second field of the line: empty for version 2.
    controller: &'static str,
}

/// The share of threads that each group leaves to this process.
pub(super) fn threads(files: &KernelFiles) -> Vec<Share> {
    let hierarchies = [
        Hierarchy::v2("/sys/fs/cgroup"),
        Hierarchy::v2("/sys/fs/cgroup/unified"),
        Hierarchy::v1("/sys/fs/cgroup/pids", "pids"),
    ];
    let share = |group: &str| {
        Some(Share {
            limit: files.number(&format!("{group}/pids.max"))?,
            used: files.number(&format!("{group}/pids.current")).unwrap_or(0),
        })
    };
    collect(files, &hierarchies, share)
}

/// The share of memory in bytes that each group leaves to this process.
pub(super) fn memory(files: &KernelFiles) -> Vec<Share> {
    let v2 = [
        Hierarchy::v2("/sys/fs/cgroup"),
        Hierarchy::v2("/sys/fs/cgroup/unified"),
    ];
    let v1 = [Hierarchy::v1("/sys/fs/cgroup/memory", "memory")];
    let mut shares = collect(files, &v2, |group| {
        // Above memory.high the kernel delays the process, by seconds at a time.
        let limits = ["memory.max", "memory.high"];
        let limits = limits.map(|name| files.number(&format!("{group}/{name}")));
        Some(Share {
            limit: limits.into_iter().flatten().min()?,
            used: memory_in_use(files, group, "memory.current", "inactive_file"),
        })
    });
    shares.extend(collect(files, &v1, |group| {
        Some(Share {
            limit: files.number(&format!("{group}/memory.limit_in_bytes"))?,
            used: memory_in_use(files, group, "memory.usage_in_bytes", "total_inactive_file"),
        })
    }));
    shares
}

/// Bytes in use, without file pages that the kernel can drop at any time; 0 if unknown.
fn memory_in_use(files: &KernelFiles, group: &str, usage: &str, droppable: &str) -> u64 {
    let in_use = files.number(&format!("{group}/{usage}")).unwrap_or(0);
    let droppable = files.field(&format!("{group}/memory.stat"), droppable);
    in_use.saturating_sub(droppable.unwrap_or(0))
}

fn collect(
    files: &KernelFiles,
    hierarchies: &[Hierarchy],
    share: impl Fn(&str) -> Option<Share>,
) -> Vec<Share> {
    let groups = hierarchies.iter().flat_map(|it| it.groups(files));
    groups.filter_map(|group| share(&group)).collect()
}

impl Hierarchy {
    const fn v1(mount: &'static str, controller: &'static str) -> Hierarchy {
        Hierarchy { mount, controller }
    }

    const fn v2(mount: &'static str) -> Hierarchy {
        let controller = "";
        Hierarchy { mount, controller }
    }

    /// The folders of the group of this process and of all groups above it, the root last.
    fn groups(&self, files: &KernelFiles) -> Vec<String> {
        let lines = files.text("/proc/self/cgroup").unwrap_or_default();
        let path = lines.lines().find_map(|line| self.path_in(line));
        let mut path = path.unwrap_or_default().trim_end_matches('/');
        let mut groups = Vec::new();
        loop {
            groups.push(format!("{}{path}", self.mount));
            let Some(end) = path.rfind('/') else {
                return groups;
            };
            path = &path[..end];
        }
    }

    /// The path in this line (`4:memory:/group`, `0::/group`) if it is about this
    /// hierarchy.
    fn path_in<'a>(&self, line: &'a str) -> Option<&'a str> {
        let (_, line) = line.split_once(':')?;
        let (controllers, path) = line.split_once(':')?;
        let is_this = controllers.split(',').any(|it| it == self.controller);
        is_this.then_some(path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::limits::kernel_files::tests::FakeFiles;

    const MB: u64 = 1 << 20;

    fn tightest(shares: Vec<Share>) -> Option<u64> {
        shares.into_iter().map(Share::free).min()
    }

    #[test]
    fn s17_every_group_above_counts() {
        let fake = FakeFiles::new(&[
            ("/proc/self/cgroup", "0::/a/b/c\n"),
            ("/sys/fs/cgroup/a/b/c/memory.max", "max\n"),
            ("/sys/fs/cgroup/a/b/memory.max", "104857600\n"),
            ("/sys/fs/cgroup/a/memory.max", "209715200\n"),
            ("/sys/fs/cgroup/a/b/c/pids.max", "100\n"),
            ("/sys/fs/cgroup/a/pids.max", "90\n"),
        ]);
        assert_eq!(tightest(memory(&fake.files())), Some(100 * MB));
        assert_eq!(tightest(threads(&fake.files())), Some(90));
        // The siblings of the group use most of what the group above may use.
        fake.write("/sys/fs/cgroup/a/memory.current", "188743680\n");
        assert_eq!(tightest(memory(&fake.files())), Some(20 * MB));
        // Half of it is file pages that no process uses.
        fake.write(
            "/sys/fs/cgroup/a/memory.stat",
            "anon 1\ninactive_file 94371840\n",
        );
        assert_eq!(tightest(memory(&fake.files())), Some(100 * MB));
        fake.write("/sys/fs/cgroup/a/pids.current", "50\n");
        assert_eq!(tightest(threads(&fake.files())), Some(40));
        fake.write("/sys/fs/cgroup/a/b/c/memory.high", "52428800\n");
        assert_eq!(tightest(memory(&fake.files())), Some(50 * MB));
    }

    #[test]
    fn s17_version_1_has_a_tree_for_each_controller() {
        let fake = FakeFiles::new(&[
            ("/proc/self/cgroup", "9:cpu,pids:/x\n4:memory:/y/z\n0::/\n"),
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
        assert_eq!(tightest(memory(&fake.files())), Some(64 * MB));
        assert_eq!(tightest(threads(&fake.files())), Some(70));
    }

    #[test]
    fn s17_a_container_that_sees_the_path_of_its_host() {
        let fake = FakeFiles::new(&[
            ("/proc/self/cgroup", "4:memory:/docker/0123456789ab\n"),
            ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "100663296\n"),
        ]);
        assert_eq!(tightest(memory(&fake.files())), Some(96 * MB));
        // Without /proc, the root of the tree is still read.
        fake.remove("/proc/self/cgroup");
        assert_eq!(tightest(memory(&fake.files())), Some(96 * MB));
        fake.remove("/sys/fs/cgroup/memory/memory.limit_in_bytes");
        assert_eq!(tightest(memory(&fake.files())), None);
    }
}
