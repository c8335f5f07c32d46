//! The built program as a child process: its settings, logs, addresses, metrics
//! and exit code.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal};
use serde_json::Value;

use super::child::{self, ChildGuard};
use super::{TIMEOUT, eventually, http};

const PROGRAM: &str = env!("CARGO_BIN_EXE_northbridge");

/// A running `northbridge`; dropping it kills it, and prints its log if the test
/// is panicking.
#[derive(Debug)]
pub struct Northbridge {
    process: ChildGuard,
    log: Arc<Lines>,
    output: Arc<Lines>,
}

impl Northbridge {
    /// Starts a subcommand with its flags, such as `["ingress"]`.
    ///
    /// `settings` are documented keys such as `http.listen` with their values. By
    /// default both listeners bind to free loopback ports.
    pub fn start(arguments: &[&str], settings: &[(&str, &str)]) -> Self {
        Self::spawn(&command(arguments, settings))
    }

    /// Like [`Northbridge::start`], with a fail point: the process kills itself at
    /// `step:count`, or stops itself at `step:count:STOP`.
    pub fn start_with_fail_point(arguments: &[&str], settings: &[(&str, &str)], at: &str) -> Self {
        let at = ("NORTHBRIDGE_FAIL_POINT", at.to_owned());
        Self::start_in_environment(arguments, settings, &[at])
    }

    /// Like [`Northbridge::start`], with these environment variables.
    pub fn start_in_environment(
        arguments: &[&str],
        settings: &[(&str, &str)],
        variables: &[(&str, String)],
    ) -> Self {
        let mut program = command(arguments, settings);
        program.envs(variables.iter().map(|(name, value)| (name, value)));
        Self::spawn(&program)
    }

    /// Like [`Northbridge::start`], as a service manager does that listens on `socket`.
    pub fn start_notifying(socket: &Path, arguments: &[&str], settings: &[(&str, &str)]) -> Self {
        let mut program = command(arguments, settings);
        program.env("NOTIFY_SOCKET", socket);
        Self::spawn(&program)
    }

    /// Like [`Northbridge::start_in_environment`], at a terminal, which takes its output
    /// and its log.
    pub fn start_at_terminal(
        terminal: &Path,
        arguments: &[&str],
        settings: &[(&str, &str)],
        variables: &[(&str, &str)],
    ) -> Self {
        let inner = command(arguments, settings);
        let mut program = Command::new("sh");
        program.args(["-c", r#"exec "$@" <"$0" >"$0" 2>&1"#]);
        program.arg(terminal).arg(PROGRAM).args(arguments);
        for (name, value) in inner.get_envs() {
            match value {
                Some(value) => program.env(name, value),
                None => program.env_remove(name),
            };
        }
        program.env("TERM", "xterm").envs(variables.iter().copied());
        Self::spawn(&program)
    }

    /// Like [`Northbridge::start`], with a log that nobody reads.
    pub fn start_unread(arguments: &[&str], settings: &[(&str, &str)]) -> Self {
        let (reader, writer) = std::io::pipe().expect("a pipe for the log");
        drop(reader);
        let program = command(arguments, settings);
        let mut process = ChildGuard::spawn(&program, Stdio::from(writer));
        let output = process.take_stdout().expect("the output is piped");
        Self {
            process,
            log: Arc::default(),
            output: Lines::collected(output),
        }
    }

    fn spawn(program: &Command) -> Self {
        let (reader, writer) = std::io::pipe().expect("a pipe for the log");
        let mut process = ChildGuard::spawn(program, Stdio::from(writer));
        let output = process.take_stdout().expect("the output is piped");
        Self {
            process,
            log: Lines::collected(BufReader::new(reader)),
            output: Lines::collected(output),
        }
    }

    /// The address of the push listener.
    pub fn address(&self) -> SocketAddr {
        self.logged_address("listening")
    }

    /// The address of the admin server.
    pub fn admin_address(&self) -> SocketAddr {
        self.logged_address("admin server listening")
    }

    /// Waits for a log line that matches and returns the first one; it may have
    /// been logged before the call.
    ///
    /// # Panics
    ///
    /// Panics if the program exits first, or after [`TIMEOUT`].
    pub fn wait_for_log(&self, matches: impl Fn(&str) -> bool) -> String {
        self.log.wait_for(matches)
    }

    /// Like [`Northbridge::wait_for_log`], for a line with this message.
    pub fn wait_for_message(&self, message: &str) -> Value {
        let line = self.wait_for_log(|line| field(line, "message").as_deref() == Some(message));
        serde_json::from_str(&line).expect("a line with a field is JSON")
    }

    /// Like [`Northbridge::wait_for_log`], for the standard output.
    pub fn wait_for_output(&self, matches: impl Fn(&str) -> bool) -> String {
        self.output.wait_for(matches)
    }

    /// All lines logged so far.
    pub fn log(&self) -> Vec<String> {
        self.log.state().lines.clone()
    }

    /// The message of the last error that was logged, of a program that has ended
    /// and logs JSON.
    pub fn last_error(&self) -> Option<String> {
        let log = self.log.complete();
        let error = log.lines().rev().find(|line| is_error(line))?;
        field(error, "message")
    }

    /// All lines of the standard output so far.
    pub fn output(&self) -> Vec<String> {
        self.output.state().lines.clone()
    }

    /// Sends a signal; SIGTERM starts a drain.
    pub fn signal(&self, signal: Signal) {
        self.process.signal(signal);
    }

    /// Waits until the process has ended and returns its exit code, or 128 plus
    /// the number of the signal that killed it.
    pub fn wait(&self) -> i32 {
        self.process.wait()
    }

    /// Like [`Northbridge::wait`], and also returns the whole standard output.
    pub fn wait_for_end(&self) -> (i32, String) {
        (self.wait(), self.output.complete())
    }

    /// The exit code; `None` while the process is running.
    pub fn exit_code(&self) -> Option<i32> {
        self.process.exit_code()
    }

    /// Sends SIGKILL and waits until the process is gone.
    pub fn kill(&self) {
        self.process.kill();
    }

    /// The process ID, for `/proc`.
    pub fn pid(&self) -> Pid {
        self.process.pid()
    }

    /// Waits until `/readyz` answers 200.
    pub fn wait_until_ready(&self) {
        eventually("northbridge is ready", || self.is_ready().then_some(()));
    }

    /// Waits until `/readyz` no longer answers 200.
    pub fn wait_until_not_ready(&self) {
        eventually("northbridge is not ready", || {
            (!self.is_ready()).then_some(())
        });
    }

    /// Waits until the push listener is closed.
    pub fn wait_until_not_listening(&self) {
        eventually("the push listener is closed", || {
            let connected = http::RawConnection::try_open(self.address());
            connected.is_err().then_some(())
        });
    }

    /// Returns whether `/readyz` answers 200 at the moment.
    pub fn is_ready(&self) -> bool {
        let answer = http::get(self.admin_address(), "/readyz");
        answer.is_some_and(|answer| answer.status == 200)
    }

    /// The value of every series of `/metrics`, by its name and labels as
    /// exposed: `northbridge_pushes_total{outcome="stored",…}`.
    pub fn metrics(&self) -> BTreeMap<String, f64> {
        let answer = http::get(self.admin_address(), "/metrics").expect("metrics");
        parse_metrics(&answer.text())
    }

    /// The sum of all series of this name that have all of these labels, such as
    /// `outcome="stored"`.
    pub fn metric(&self, name: &str, labels: &[&str]) -> f64 {
        let metrics = self.metrics();
        let matches = |series: &str| {
            let (found, has) = series.split_once('{').unwrap_or((series, ""));
            found == name && labels.iter().all(|label| has.contains(label))
        };
        let series = metrics.iter().filter(|(series, _)| matches(series));
        series.map(|(_, value)| value).sum()
    }

    /// Waits until [`Northbridge::metric`] equals `value`.
    pub fn wait_for_metric(&self, name: &str, labels: &[&str], value: f64) {
        eventually(&format!("{name}{labels:?} is {value}"), || {
            let is = self.metric(name, labels);
            ((is - value).abs() < f64::EPSILON).then_some(())
        });
    }

    /// Waits until `count` pushes have had this outcome.
    pub fn wait_for_outcome(&self, outcome: &str, count: u32) {
        let label = format!("outcome=\"{outcome}\"");
        self.wait_for_metric("northbridge_pushes_total", &[&label], count.into());
    }

    /// The body of `/readyz`; `None` if the program is not listening.
    fn readiness(&self) -> Option<String> {
        let log = self.log();
        let listening = log
            .iter()
            .find(|line| field(line, "message").as_deref() == Some("admin server listening"))?;
        let address = field(listening, "address")?.parse().ok()?;
        http::get(address, "/readyz").map(|answer| answer.text())
    }

    fn logged_address(&self, message: &str) -> SocketAddr {
        let line = self.wait_for_message(message).to_string();
        let address = field(&line, "address").expect("the line names its address");
        address.parse().expect("an address and a port")
    }
}

impl Drop for Northbridge {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("northbridge's readiness: {:?}", self.readiness());
        }
        self.kill();
        if thread::panicking() {
            eprintln!("northbridge logged:\n{}", self.log().join("\n"));
        }
    }
}

/// Runs a one-shot command, such as `["topics", "verify"]`, to its end.
///
/// `settings` are those of [`Northbridge::start`].
pub fn run(arguments: &[&str], settings: &[(&str, &str)]) -> Output {
    let mut program = command(arguments, settings);
    child::run(program.stdin(Stdio::null())).expect("the program was built")
}

/// Creates the topics of these settings.
///
/// # Panics
///
/// Panics if one cannot be created.
pub fn create_topics(settings: &[(&str, &str)]) {
    let created = run(&["topics", "create"], settings);
    assert!(created.status.success(), "{created:?}");
}

/// Runs a one-shot command with a file as its standard output.
pub fn run_into(file: File, arguments: &[&str]) -> Output {
    let mut program = command(arguments, &[]);
    program.stdin(Stdio::null()).stdout(file);
    let child = child::start(program.stderr(Stdio::piped())).expect("the program was built");
    child.wait_with_output().expect("its errors")
}

/// Runs a command whose standard output is read up to this number of lines, as by
/// `| head -n LINES`.
///
/// # Panics
///
/// Panics if the command has not ended after [`TIMEOUT`].
pub fn run_with_head(lines: usize, arguments: &[&str], settings: &[(&str, &str)]) -> Output {
    let mut program = command(arguments, settings);
    program.stdin(Stdio::null()).stderr(Stdio::piped());
    let mut child = child::start(program.stdout(Stdio::piped())).expect("it starts");
    let output = child.stdout.take().expect("the output is piped");
    let read = BufReader::new(output).lines().take(lines).count();
    assert_eq!(read, lines, "{arguments:?}");
    let deadline = Instant::now() + TIMEOUT;
    while child.try_wait().expect("a child").is_none() {
        if Instant::now() > deadline {
            child.kill().expect("a running child");
            panic!("{arguments:?} has not ended");
        }
        thread::sleep(Duration::from_millis(20));
    }
    child.wait_with_output().expect("its errors")
}

/// Parses the Prometheus text format into series (name and labels) and values.
pub fn parse_metrics(text: &str) -> BTreeMap<String, f64> {
    let series = text.lines().filter(|line| !line.starts_with('#'));
    series
        .filter_map(|line| {
            let (name, value) = line.rsplit_once(' ')?;
            Some((name.to_owned(), value.parse().ok()?))
        })
        .collect()
}

/// Passes the settings through the environment, as an operator would. Settings
/// in the environment of the tests are removed.
fn command(arguments: &[&str], settings: &[(&str, &str)]) -> Command {
    let mut program = Command::new(PROGRAM);
    program.args(arguments);
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("NORTHBRIDGE__") {
            program.env_remove(name);
        }
    }
    program.env("NORTHBRIDGE__HTTP__LISTEN", "127.0.0.1:0");
    program.env("NORTHBRIDGE__ADMIN__LISTEN", "127.0.0.1:0");
    for (key, value) in settings {
        let name = key.to_uppercase().replace('.', "__");
        program.env(format!("NORTHBRIDGE__{name}"), value);
    }
    program
}

fn is_error(line: &str) -> bool {
    field(line, "level").as_deref() == Some("ERROR")
}

/// A field of a JSON log line, at the top level or inside `fields`.
fn field(line: &str, name: &str) -> Option<String> {
    let line: Value = serde_json::from_str(line).ok()?;
    let value = line.get(name).or_else(|| line.get("fields")?.get(name))?;
    value.as_str().map(str::to_owned)
}

/// The lines of a stream so far; a thread collects them until its end.
#[derive(Debug, Default)]
struct Lines {
    state: Mutex<LinesState>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct LinesState {
    lines: Vec<String>,
    ended: bool,
}

impl Lines {
    fn collected(stream: BufReader<impl Read + Send + 'static>) -> Arc<Self> {
        let lines = Arc::new(Self::default());
        let collector = Arc::clone(&lines);
        thread::spawn(move || {
            for line in stream.lines().map_while(Result::ok) {
                collector.change(|state| state.lines.push(line));
            }
            collector.change(|state| state.ended = true);
        });
        lines
    }

    fn wait_for(&self, matches: impl Fn(&str) -> bool) -> String {
        let deadline = Instant::now() + TIMEOUT;
        let mut state = self.state();
        let mut seen = 0;
        loop {
            if let Some(line) = state.lines[seen..].iter().find(|line| matches(line)) {
                return line.clone();
            }
            assert!(!state.ended, "the program exited without the expected line");
            seen = state.lines.len();
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "timed out waiting for the expected line");
            let waited = self.changed.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn complete(&self) -> String {
        eventually("the output ends", || {
            let state = self.state();
            state.ended.then(|| state.lines.join("\n"))
        })
    }

    fn change(&self, change: impl FnOnce(&mut LinesState)) {
        change(&mut self.state());
        self.changed.notify_all();
    }

    fn state(&self) -> MutexGuard<'_, LinesState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
