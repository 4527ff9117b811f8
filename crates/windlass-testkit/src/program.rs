//! A program of a few instructions for containers, written as bytes, so that images can run without a compiler here.
//!
//! It is an ELF file of one segment (elf(5)) with x86-64 instructions: it writes a greeting to standard output and then
//! either ends or waits for SIGTERM or SIGINT and ends then. It asks no library and opens no file.
//!
//! Invariant: `it_greets_and_then_ends_or_stays`.

/// What the program does after its greeting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Then {
    /// Ends with success.
    Ends,
    /// Waits for SIGTERM or SIGINT, then ends with success, also as the first process of a container.
    Stays,
}

/// Whether this machine runs what [`program`] makes.
pub const RUNS_HERE: bool = cfg!(all(target_os = "linux", target_arch = "x86_64"));

/// Where the file is mapped; any page does.
const BASE: u64 = 0x40_0000;
/// The ELF header and the one program header in front of the instructions.
const HEADERS_BYTES: usize = 64 + 56;
/// SIGINT (2) and SIGTERM (15) as the kernel's set of signals: bit n-1 for signal n.
const SIGNALS: u64 = 1 << 1 | 1 << 14;

/// The file.
pub fn program(greeting: &str, then: Then) -> Vec<u8> {
    let mut code = Code::default();
    // write(1, greeting, its length)
    code.bytes(&[0xb8, 1, 0, 0, 0, 0xbf, 1, 0, 0, 0]);
    code.address_of(Place::Greeting, Register::Rsi);
    code.bytes(&[0xba]);
    code.bytes(&u32::try_from(greeting.len()).expect("a short greeting").to_le_bytes());
    code.system_call();
    if then == Then::Stays {
        // rt_sigprocmask(SIG_BLOCK, signals, NULL, 8): blocked, they reach even the first process of a namespace.
        code.bytes(&[0xb8, 14, 0, 0, 0, 0x31, 0xff]);
        code.address_of(Place::Signals, Register::Rsi);
        code.bytes(&[0x31, 0xd2, 0x41, 0xba, 8, 0, 0, 0]);
        code.system_call();
        // rt_sigtimedwait(signals, NULL, NULL, 8), again when it was interrupted.
        let wait = code.code.len();
        code.bytes(&[0xb8, 128, 0, 0, 0]);
        code.address_of(Place::Signals, Register::Rdi);
        code.bytes(&[0x31, 0xf6, 0x31, 0xd2, 0x41, 0xba, 8, 0, 0, 0]);
        code.system_call();
        // test eax, eax; js wait
        let back = code.code.len() + 4 - wait;
        code.bytes(&[0x85, 0xc0, 0x78, u8::try_from(256 - back).expect("a short way back")]);
    }
    // exit(0)
    code.bytes(&[0xb8, 60, 0, 0, 0, 0x31, 0xff]);
    code.system_call();
    file(code.finish(greeting))
}

/// What stands behind the instructions.
#[derive(Clone, Copy, Debug)]
enum Place {
    Signals,
    Greeting,
}

/// Registers that take an address, by their byte in `lea`.
#[derive(Clone, Copy, Debug)]
enum Register {
    Rsi = 0x35,
    Rdi = 0x3d,
}

/// Instructions and the addresses that are still open in them.
#[derive(Debug, Default)]
struct Code {
    code: Vec<u8>,
    open: Vec<(usize, Place)>,
}

impl Code {
    fn bytes(&mut self, bytes: &[u8]) {
        self.code.extend_from_slice(bytes);
    }

    fn system_call(&mut self) {
        self.bytes(&[0x0f, 0x05]);
    }

    /// `lea register, [rip + distance]`.
    fn address_of(&mut self, place: Place, register: Register) {
        self.bytes(&[0x48, 0x8d, register as u8]);
        self.open.push((self.code.len(), place));
        self.bytes(&[0; 4]);
    }

    /// The instructions, the set of signals and the greeting.
    fn finish(mut self, greeting: &str) -> Vec<u8> {
        let signals = self.code.len();
        for (at, place) in self.open {
            let target = match place {
                Place::Signals => signals,
                Place::Greeting => signals + size_of::<u64>(),
            };
            // The distance counts from the end of the instruction, which the address ends.
            let distance = u32::try_from(target - (at + 4)).expect("a short way");
            self.code[at..at + 4].copy_from_slice(&distance.to_le_bytes());
        }
        [&self.code[..], &SIGNALS.to_le_bytes(), greeting.as_bytes()].concat()
    }
}

/// Puts the headers in front: one segment that may be read and executed, entered at its first instruction.
fn file(code: Vec<u8>) -> Vec<u8> {
    let all = (HEADERS_BYTES + code.len()) as u64;
    let mut file = Vec::with_capacity(HEADERS_BYTES + code.len());
    // 64 bits, little endian, version 1; the rest of the identification is zero.
    file.extend_from_slice(&[0x7f, b'E', b'L', b'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    // Executable, x86-64, version 1.
    file.extend_from_slice(&[2, 0, 62, 0, 1, 0, 0, 0]);
    // Entry, program headers, section headers.
    for field in [BASE + HEADERS_BYTES as u64, 64, 0] {
        file.extend_from_slice(&field.to_le_bytes());
    }
    // Flags; sizes and counts of headers.
    file.extend_from_slice(&[0, 0, 0, 0, 64, 0, 56, 0, 1, 0, 0, 0, 0, 0, 0, 0]);
    // PT_LOAD, read and execute.
    file.extend_from_slice(&[1, 0, 0, 0, 5, 0, 0, 0]);
    // Offset, address twice, size in the file and in memory, alignment.
    for field in [0, BASE, BASE, all, all, 0x1000] {
        file.extend_from_slice(&field.to_le_bytes());
    }
    file.extend_from_slice(&code);
    file
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::io::Read as _;
    use std::os::unix::fs::PermissionsExt as _;
    use std::process::{Command, Stdio};

    fn placed(then: Then) -> (tempfile::TempDir, Command) {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("program");
        fs::write(&path, program("hello from a few bytes\n", then)).expect("a file");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("a mode");
        let command = Command::new(path);
        (dir, command)
    }

    /// One test, since a file that is still open for writing in another test's child cannot be started.
    #[test]
    fn it_greets_and_then_ends_or_stays() {
        if !RUNS_HERE {
            return;
        }
        let (_dir, mut command) = placed(Then::Ends);
        let output = command.output().expect("it starts");
        assert!(output.status.success(), "{}", output.status);
        assert_eq!(output.stdout, b"hello from a few bytes\n");
        let (_dir, mut command) = placed(Then::Stays);
        let mut child = command.stdout(Stdio::piped()).spawn().expect("it starts");
        let mut greeting = [0; 23];
        child.stdout.take().expect("a pipe").read_exact(&mut greeting).expect("a greeting");
        assert!(child.try_wait().expect("a state").is_none(), "it ended by itself");
        let pid = rustix::process::Pid::from_child(&child);
        // After its greeting it sleeps only where it waits; a signal before that would kill it.
        while !sleeps(child.id()) {
            std::thread::yield_now();
        }
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("a signal");
        assert!(child.wait().expect("an end").success());
    }

    fn sleeps(pid: u32) -> bool {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("a process");
        status.lines().any(|line| line == "State:\tS (sleeping)")
    }
}
