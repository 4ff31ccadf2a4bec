//! A service whose memory limit is too small for the maps.

use std::path::{Path, PathBuf};
use std::process::Command;

use trireme_bpf::{OpenError, Plane, PlaneConfig};

use crate::lab::Lab;

const ROLE: &str = "TRIREME_TEST_MEMORY";

/// A group of processes with a memory limit, removed with this.
struct Group(PathBuf);

impl Group {
    fn new(name: &str, bytes: u64) -> Self {
        let (root, limit) = if Path::new("/sys/fs/cgroup/memory/cgroup.procs").exists() {
            ("/sys/fs/cgroup/memory", "memory.limit_in_bytes")
        } else {
            ("/sys/fs/cgroup", "memory.max")
        };
        let group = Path::new(root).join(name);
        std::fs::create_dir(&group).unwrap();
        let group = Self(group);
        std::fs::write(group.0.join(limit), bytes.to_string()).unwrap();
        group
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // The last process may be on its way out.
        for _ in 0..100 {
            if std::fs::remove_dir(&self.0).is_ok() {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
    }
}

#[test]
fn memory_limit_is_an_error_that_names_the_map_and_the_remedy() {
    let lab = Lab::new();
    let group = Group::new(&format!("trireme-{}", lab.instance), 64 << 20);

    let output = lab
        .node
        .run(|| {
            Command::new(std::env::current_exe().unwrap())
                .args(["--ignored", "--exact", "memory::child_with_a_memory_limit", "--nocapture"])
                .env(ROLE, format!("{} {}", lab.instance, group.0.display()))
                .output()
                .unwrap()
        })
        .unwrap();

    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text} {}", String::from_utf8_lossy(&output.stderr));
    assert!(text.contains("no memory for map ") && text.contains("raise the memory limit"), "{text}");
}

#[test]
#[ignore = "started by the test above"]
#[expect(clippy::print_stdout, reason = "tells its parent")]
fn child_with_a_memory_limit() {
    let role = std::env::var(ROLE).expect("started by the test above");
    let (instance, group) = role.split_once(' ').unwrap();
    std::fs::write(Path::new(group).join("cgroup.procs"), std::process::id().to_string()).unwrap();

    let mut config = PlaneConfig::new(instance);
    config.sizes.connections = 1 << 20;
    let error = Plane::open(config).unwrap_err();

    println!("{error}");
    assert!(matches!(error, OpenError::Memory { .. }), "{error:?}");
}
