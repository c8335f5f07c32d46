//! Child processes that never outlive the test process, however that ends.
//!
//! A destructor runs neither after SIGKILL nor for a static. Each child therefore
//! has a small shell as its parent, and that shell reads from a pipe whose write
//! end only the test process holds. When the test process ends, the kernel
//! closes the pipe and the shell kills the child. SIGKILL also reaches a child
//! that SIGSTOP has stopped.
//!
//! It must not know which program the child runs.

use std::fs;
use std::io::{self, BufRead, BufReader};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Output, Stdio};
use std::sync::{Mutex, PoisonError, RwLock};
use std::thread;

use rustix::process::{Pid, Signal, kill_process, test_kill_process};

/// Runs `"$@"` and prints its process ID as the first line of the output.
///
/// The shell remains the parent until the child has ended, so the kernel cannot
/// reuse the child's process ID while the watchdog may still kill it.
const SCRIPT: &str = r#"
leftovers=$1; shift
exec 3<&0 </dev/null
sh -c 'echo $$; exec "$@"' sh "$@" 3<&- &
program=$!
exec 2>/dev/null
(
  read -r _ <&3
  trap '' TERM
  kill -KILL "$program"
  until [ -z "$leftovers" ] || rm -rf -- "$leftovers"; do sleep 0.1; done
) >/dev/null &
watchdog=$!
exec 3<&- >/dev/null
wait "$program"
code=$?
kill "$watchdog"
exit "$code"
"#;

/// Read-locked while a process starts: until it executes its program it has copies of all
/// sockets of the tests.
static STARTING: RwLock<()> = RwLock::new(());

/// A running child process; dropping it kills it.
#[derive(Debug)]
pub struct ChildGuard {
    pid: Pid,
    shell: Mutex<Child>,
    stdout: Option<BufReader<ChildStdout>>,
    /// Never written to; the shell waits for it to close.
    _parent_is_alive: ChildStdin,
}

impl ChildGuard {
    /// Starts `program` with its arguments, environment and working directory;
    /// its standard error goes to `stderr`.
    pub fn spawn(program: &Command, stderr: Stdio) -> Self {
        Self::spawn_with_leftovers(program, stderr, None)
    }

    /// Like [`ChildGuard::spawn`]; also deletes `leftovers` if the test process
    /// ends while the child is still running.
    pub fn spawn_with_leftovers(
        program: &Command,
        stderr: Stdio,
        leftovers: Option<&Path>,
    ) -> Self {
        let mut shell = shell(program, leftovers);
        shell.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut shell = start(shell.stderr(stderr)).expect("a POSIX shell named sh");
        // `Child::wait` closes a standard input that has not been taken.
        let parent_is_alive = shell.stdin.take().expect("stdin is piped");
        let mut stdout = BufReader::new(shell.stdout.take().expect("stdout is piped"));
        Self {
            pid: read_pid(&mut stdout),
            shell: Mutex::new(shell),
            stdout: Some(stdout),
            _parent_is_alive: parent_is_alive,
        }
    }

    /// The process ID of the child, not of the shell.
    pub fn pid(&self) -> Pid {
        self.pid
    }

    /// The child's standard output; `None` if it has been taken before.
    pub fn take_stdout(&mut self) -> Option<BufReader<ChildStdout>> {
        self.stdout.take()
    }

    /// Sends a signal unless the child has ended.
    pub fn signal(&self, signal: Signal) {
        if self.exit_code().is_none() {
            // It may have ended since the check; that is not a failure.
            let _ = kill_process(self.pid, signal);
        }
    }

    /// The exit code, or 128 plus the number of the signal that killed the
    /// child; `None` while it is running.
    pub fn exit_code(&self) -> Option<i32> {
        let mut shell = self.shell.lock().unwrap_or_else(PoisonError::into_inner);
        let status = shell.try_wait().expect("the shell is our child")?;
        Some(status.code().unwrap_or(-1))
    }

    /// Waits until the child has ended and returns its [exit code].
    ///
    /// [exit code]: Self::exit_code
    pub fn wait(&self) -> i32 {
        super::eventually("the child process ends", || self.exit_code())
    }

    /// Sends SIGKILL and waits until the process is gone.
    pub fn kill(&self) {
        self.signal(Signal::KILL);
        let mut shell = self.shell.lock().unwrap_or_else(PoisonError::into_inner);
        let _ = shell.wait();
    }
}

impl Drop for ChildGuard {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Starts a process, and waits until it has none of the tests' sockets any more.
pub fn start(program: &mut Command) -> io::Result<Child> {
    let _starting = STARTING.read().unwrap_or_else(PoisonError::into_inner);
    let child = program.spawn()?;
    // `spawn` returns a moment before Linux closes them, and gives the process the name of
    // its program a moment later; until then it has the name of this thread.
    let name = |process: &str| fs::read(format!("/proc/{process}/comm"));
    let (own, process) = (name("thread-self")?, child.id().to_string());
    while name(&process).is_ok_and(|name| name == own) {
        thread::yield_now();
    }
    Ok(child)
}

/// Runs a process to its end, and returns its output and errors.
pub fn run(program: &mut Command) -> io::Result<Output> {
    program.stdout(Stdio::piped()).stderr(Stdio::piped());
    start(program)?.wait_with_output()
}

/// Does something while no process starts, so that a socket is closed at once.
pub fn while_none_starts(act: impl FnOnce()) {
    let _none = STARTING.write().unwrap_or_else(PoisonError::into_inner);
    act();
}

/// Returns whether a process with this ID exists, running or stopped.
pub fn is_alive(pid: Pid) -> bool {
    test_kill_process(pid).is_ok()
}

fn shell(program: &Command, leftovers: Option<&Path>) -> Command {
    let mut shell = Command::new("sh");
    shell.args(["-c", SCRIPT, "sh"]);
    shell.arg(leftovers.unwrap_or(Path::new("")));
    shell.arg(program.get_program()).args(program.get_args());
    for (name, value) in program.get_envs() {
        match value {
            Some(value) => shell.env(name, value),
            None => shell.env_remove(name),
        };
    }
    if let Some(directory) = program.get_current_dir() {
        shell.current_dir(directory);
    }
    shell
}

fn read_pid(stdout: &mut impl BufRead) -> Pid {
    let mut line = String::new();
    stdout.read_line(&mut line).expect("the shell's output");
    let pid = line.trim().parse().ok().and_then(Pid::from_raw);
    pid.expect("the shell prints the child's process ID first")
}
