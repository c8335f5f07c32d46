//! Child processes that never outlive the tests, whatever ends the tests.
//!
//! A destructor does not run after SIGKILL, nor for a static. So each child
//! has a small shell for a parent, and the shell reads from a pipe whose other
//! end only the test process holds: when that process ends, in whatever way,
//! the kernel closes the pipe, and the shell kills the child. SIGKILL reaches a
//! child that is stopped by SIGSTOP as well.
//!
//! It must not know what the child is.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::{Mutex, PoisonError};

use rustix::process::{Pid, Signal, kill_process, test_kill_process};

/// Runs `"$@"` with its process id as the first line of the output.
///
/// The shell stays the parent until the child ended: its process id cannot be
/// given to another process while the watch may still kill it.
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
watch=$!
exec 3<&- >/dev/null
wait "$program"
code=$?
kill "$watch"
exit "$code"
"#;

/// A running child process; dropping it kills it.
#[derive(Debug)]
pub struct Guarded {
    pid: Pid,
    shell: Mutex<Child>,
    stdout: Option<BufReader<ChildStdout>>,
    /// Never written to: closing it is the message.
    _lifeline: ChildStdin,
}

impl Guarded {
    /// Starts `program` (its program, arguments, environment and directory)
    /// with `stderr` where the caller wants it.
    pub fn spawn(program: &Command, stderr: Stdio) -> Self {
        Self::spawn_over(program, stderr, None)
    }

    /// As [`Guarded::spawn`]; when the test process ends while the child runs,
    /// `leftovers` is deleted as well.
    pub fn spawn_over(program: &Command, stderr: Stdio, leftovers: Option<&Path>) -> Self {
        let mut shell = shell(program, leftovers)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(stderr)
            .spawn()
            .expect("a POSIX shell named sh");
        // Waiting for the child closes a standard input that it still holds.
        let lifeline = shell.stdin.take().expect("stdin is piped");
        let mut stdout = BufReader::new(shell.stdout.take().expect("stdout is piped"));
        Self {
            pid: read_pid(&mut stdout),
            shell: Mutex::new(shell),
            stdout: Some(stdout),
            _lifeline: lifeline,
        }
    }

    /// The child's own process id, not the shell's.
    pub fn pid(&self) -> Pid {
        self.pid
    }

    /// What the child writes to its standard output; `None` once taken.
    pub fn take_stdout(&mut self) -> Option<BufReader<ChildStdout>> {
        self.stdout.take()
    }

    /// Sends a signal; nothing happens when the child has ended.
    pub fn signal(&self, signal: Signal) {
        if self.exit_code().is_none() {
            // It may have ended in between, which is no failure of the test.
            let _ = kill_process(self.pid, signal);
        }
    }

    /// The exit code, or 128 plus the number of the signal that ended the
    /// child; `None` while it runs.
    pub fn exit_code(&self) -> Option<i32> {
        let mut shell = self.shell.lock().unwrap_or_else(PoisonError::into_inner);
        let status = shell.try_wait().expect("the shell is our child")?;
        Some(status.code().unwrap_or(-1))
    }

    /// Waits for the end and returns what [`Guarded::exit_code`] then says.
    pub fn wait(&self) -> i32 {
        super::eventually("the child process ends", || self.exit_code())
    }

    /// SIGKILL, and waits until the process is gone.
    pub fn kill(&self) {
        self.signal(Signal::KILL);
        let mut shell = self.shell.lock().unwrap_or_else(PoisonError::into_inner);
        let _ = shell.wait();
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Whether a process of this id exists, running or stopped.
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
    pid.expect("the shell prints the child's process id first")
}
