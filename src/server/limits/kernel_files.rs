//! Numbers in the files of the kernel, below `/proc` and `/sys`.

use std::fs;
use std::path::PathBuf;

/// The file system that has these files.
pub(super) struct KernelFiles {
    /// `/`; another folder in tests.
    root: PathBuf,
}

/// What one limit leaves to this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Share {
    pub(super) limit: u64,
    /// What is in use already; 0 if unknown.
    pub(super) used: u64,
}

impl Share {
    /// How much of the limit is not in use.
    pub(super) fn free(self) -> u64 {
        self.limit.saturating_sub(self.used)
    }
}

impl KernelFiles {
    /// The files of this system.
    pub(super) fn of_this_system() -> KernelFiles {
        KernelFiles { root: "/".into() }
    }

    /// The content of a file; `None` if it cannot be read.
    pub(super) fn text(&self, path: &str) -> Option<String> {
        fs::read_to_string(self.root.join(path.trim_start_matches('/'))).ok()
    }

    /// The target of a symbolic link; `None` if it cannot be read.
    pub(super) fn link(&self, path: &str) -> Option<String> {
        let target = fs::read_link(self.root.join(path.trim_start_matches('/'))).ok()?;
        target.into_os_string().into_string().ok()
    }

    /// Is there such a file?
    pub(super) fn has(&self, path: &str) -> bool {
        self.root.join(path.trim_start_matches('/')).exists()
    }

    /// The names of the files in a folder; none if it cannot be read.
    pub(super) fn names(&self, folder: &str) -> Vec<String> {
        let entries = fs::read_dir(self.root.join(folder.trim_start_matches('/')));
        let entries = entries.into_iter().flatten().flatten();
        let names = entries.map(|entry| entry.file_name().into_string());
        names.flatten().collect()
    }

    /// The number that a file consists of; `None` if it cannot be read or has another
    /// content, such as "max".
    pub(super) fn number(&self, path: &str) -> Option<u64> {
        self.text(path)?.trim().parse().ok()
    }

    /// The number after this name, in a file with a name and a number in each line.
    pub(super) fn field(&self, path: &str, name: &str) -> Option<u64> {
        let text = self.text(path)?;
        let mut lines = text.lines().map(str::split_whitespace);
        let mut words = lines.find_map(|mut words| (words.next()? == name).then_some(words))?;
        words.next()?.parse().ok()
    }

    /// The same for a field in kilobytes (`MemAvailable: 123 kB`), in bytes.
    pub(super) fn kilobytes(&self, path: &str, name: &str) -> Option<u64> {
        Some(self.field(path, name)?.saturating_mul(1 << 10))
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use tempfile::TempDir;

    /// Files in a temporary folder, in place of those of the kernel.
    pub(in crate::server::limits) struct FakeFiles(TempDir);

    impl FakeFiles {
        pub(in crate::server::limits) fn new(files: &[(&str, &str)]) -> FakeFiles {
            let fake = FakeFiles(tempfile::tempdir().expect("a folder"));
            for (path, content) in files {
                fake.write(path, content);
            }
            fake
        }

        fn path(&self, path: &str) -> PathBuf {
            self.0.path().join(path.trim_start_matches('/'))
        }

        pub(in crate::server::limits) fn write(&self, path: &str, content: &str) {
            let path = self.path(path);
            fs::create_dir_all(path.parent().expect("a folder")).expect("created");
            fs::write(path, content).expect("written");
        }

        /// Makes a symbolic link.
        pub(in crate::server::limits) fn link(&self, path: &str, target: &str) {
            let path = self.path(path);
            fs::create_dir_all(path.parent().expect("a folder")).expect("created");
            std::os::unix::fs::symlink(target, path).expect("linked");
        }

        pub(in crate::server::limits) fn remove(&self, path: &str) {
            fs::remove_file(self.path(path)).expect("removed");
        }

        pub(in crate::server::limits) fn files(&self) -> KernelFiles {
            KernelFiles {
                root: self.0.path().to_owned(),
            }
        }
    }

    #[test]
    fn numbers_and_fields_of_kernel_files() {
        let fake = FakeFiles::new(&[
            ("/proc/number", "65530\n"),
            ("/proc/max", "max\n"),
            ("/proc/status", "VmSize:\t  12 kB\nVmData:   7 kB\nbroken\n"),
        ]);
        let files = fake.files();
        assert_eq!(files.number("/proc/number"), Some(65530));
        assert_eq!(files.number("/proc/max"), None);
        assert_eq!(files.number("/proc/missing"), None);
        assert_eq!(files.kilobytes("/proc/status", "VmData:"), Some(7 << 10));
        assert_eq!(files.field("/proc/status", "Vm"), None);
        assert_eq!(files.field("/proc/status", "broken"), None);
    }
}
