//! The thread that unpacks, without everything that unpacking does not need.
//!
//! The second line behind the resolver: were a path ever to lead out of the stage, the kernel would refuse to open,
//! create, link or remove there. Landlock leaves the thread its stage, and reading of the layers below where they were
//! given; seccomp takes programs, mounts, other processes and sockets. Both hold for one thread and those it starts, so
//! nothing else in the process changes. A kernel without them unpacks all the same, which is said once.
//!
//! Invariants: `a_confined_thread_cannot_leave_its_stage`, `a_confined_thread_starts_no_program_and_no_socket`.

use std::collections::BTreeMap;
use std::os::fd::BorrowedFd;
use std::sync::Once;

use landlock::{
    ABI, Access as _, AccessFs, CompatLevel, Compatible as _, PathBeneath, Ruleset, RulesetAttr as _,
    RulesetCreatedAttr as _, RulesetError, RulesetStatus,
};
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, TargetArch};

/// The newest file rights named here; a kernel that knows fewer takes those it knows.
const RIGHTS: ABI = ABI::V5;

/// What a layer never asks for: programs, namespaces, mounts, other processes, sockets, kernel interfaces.
const REFUSED: &[libc::c_long] = &[
    libc::SYS_execve,
    libc::SYS_execveat,
    libc::SYS_unshare,
    libc::SYS_setns,
    libc::SYS_chroot,
    libc::SYS_pivot_root,
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_move_mount,
    libc::SYS_open_tree,
    libc::SYS_fsopen,
    libc::SYS_fsmount,
    libc::SYS_fspick,
    libc::SYS_mount_setattr,
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_kill,
    libc::SYS_socket,
    libc::SYS_socketpair,
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_io_uring_setup,
    libc::SYS_userfaultfd,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_kexec_load,
    libc::SYS_keyctl,
];

/// Runs `work` on a thread of its own that can write below `stage` and read below `readable`, and little else.
pub(super) fn confined<T: Send>(
    stage: BorrowedFd<'_>,
    readable: &[BorrowedFd<'_>],
    work: impl FnOnce() -> T + Send,
) -> T {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            if let Err(why) = restrict(stage, readable) {
                static SAID: Once = Once::new();
                SAID.call_once(|| tracing::warn!(%why, "layers are unpacked without a sandbox"));
            }
            work()
        });
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// Why a thread is not confined.
#[derive(Debug, thiserror::Error)]
enum Open {
    #[error("the kernel has no Landlock")]
    NoLandlock,
    #[error("landlock: {0}")]
    Landlock(#[from] RulesetError),
    #[error("seccomp: {0}")]
    Seccomp(#[from] seccompiler::Error),
    #[error("seccomp: {0}")]
    Filter(#[from] seccompiler::BackendError),
}

fn restrict(stage: BorrowedFd<'_>, readable: &[BorrowedFd<'_>]) -> Result<(), Open> {
    let mut rules = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(RIGHTS))?
        .create()?
        .add_rule(PathBeneath::new(stage, AccessFs::from_all(RIGHTS)))?;
    for below in readable {
        rules = rules.add_rule(PathBeneath::new(below, AccessFs::ReadFile | AccessFs::ReadDir))?;
    }
    let held = rules.restrict_self()?.ruleset;
    seccompiler::apply_filter(&filter()?)?;
    match held {
        RulesetStatus::FullyEnforced | RulesetStatus::PartiallyEnforced => Ok(()),
        RulesetStatus::NotEnforced => Err(Open::NoLandlock),
    }
}

fn filter() -> Result<BpfProgram, Open> {
    let rules: BTreeMap<i64, Vec<_>> = REFUSED.iter().map(|call| (*call, Vec::new())).collect();
    let refuse = SeccompAction::Errno(libc::EPERM.cast_unsigned());
    let arch = TargetArch::try_from(std::env::consts::ARCH)?;
    Ok(SeccompFilter::new(rules, SeccompAction::Allow, refuse, arch)?.try_into()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{self, File};
    use std::os::fd::AsFd as _;

    #[test]
    fn a_confined_thread_cannot_leave_its_stage() {
        let dir = tempfile::tempdir().expect("a directory");
        let (stage, below, outside) = (dir.path().join("stage"), dir.path().join("below"), dir.path().join("outside"));
        for path in [&stage, &below, &outside] {
            fs::create_dir(path).expect("a directory");
            fs::write(path.join("there"), "content").expect("a file");
        }
        let (stage_dir, below_dir) =
            (File::open(&stage).expect("it is there"), File::open(&below).expect("it is there"));
        confined(stage_dir.as_fd(), &[below_dir.as_fd()], || {
            fs::write(stage.join("new"), "x").expect("writing into the stage is what it is for");
            fs::rename(stage.join("new"), stage.join("moved")).expect("as is moving in it");
            fs::read(below.join("there")).expect("layers below can be read");
            let refused = [
                fs::write(below.join("new"), "x"),
                fs::write(outside.join("new"), "x"),
                fs::read(outside.join("there")).map(drop),
                fs::remove_file(outside.join("there")),
                fs::create_dir(dir.path().join("new")),
                fs::hard_link(outside.join("there"), stage.join("link")),
                fs::rename(stage.join("moved"), outside.join("moved")),
                std::os::unix::fs::symlink("x", outside.join("link")),
            ];
            for (which, result) in refused.into_iter().enumerate() {
                let kind = result.expect_err(&format!("number {which} left the stage")).kind();
                assert!(
                    matches!(kind, std::io::ErrorKind::PermissionDenied | std::io::ErrorKind::CrossesDevices),
                    "number {which}: {kind:?}"
                );
            }
        });
        fs::write(outside.join("new"), "x").expect("other threads are as free as before");
    }

    #[test]
    fn a_confined_thread_starts_no_program_and_no_socket() {
        let dir = tempfile::tempdir().expect("a directory");
        let stage = File::open(dir.path()).expect("it is there");
        confined(stage.as_fd(), &[], || {
            let socket = std::net::UdpSocket::bind("127.0.0.1:0").expect_err("no socket");
            assert_eq!(socket.raw_os_error(), Some(libc::EPERM));
            std::process::Command::new("/bin/true").status().expect_err("no program");
        });
    }
}
