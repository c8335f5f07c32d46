//! The built program as a child process: its settings, its logs, its addresses,
//! its metrics, its end.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::process::{Command, Output, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Instant;

use rustix::process::{Pid, Signal};
use serde_json::Value;

use super::guarded::Guarded;
use super::{PATIENCE, eventually, http};

const PROGRAM: &str = env!("CARGO_BIN_EXE_northbridge");

/// A running `northbridge`; dropping it kills it, and shows its log when the
/// test is failing.
#[derive(Debug)]
pub struct Northbridge {
    process: Guarded,
    log: Arc<Lines>,
    output: Arc<Lines>,
}

impl Northbridge {
    /// Starts a subcommand with its flags, such as `["ingress"]`.
    ///
    /// `settings` are keys as the documentation names them (`http.listen`) and
    /// their values. Where they say nothing, both listeners take free loopback
    /// ports.
    pub fn start(arguments: &[&str], settings: &[(&str, &str)]) -> Self {
        Self::spawn(&command(arguments, settings))
    }

    /// As [`Northbridge::start`], with a point at which the streams are to
    /// fail: `step:count` or, to be frozen there, `step:count:STOP`.
    pub fn start_failing(arguments: &[&str], settings: &[(&str, &str)], at: &str) -> Self {
        let mut program = command(arguments, settings);
        program.env("NORTHBRIDGE_FAIL_POINT", at);
        Self::spawn(&program)
    }

    fn spawn(program: &Command) -> Self {
        let (reader, writer) = std::io::pipe().expect("a pipe for the log");
        let mut process = Guarded::spawn(program, Stdio::from(writer));
        let output = process.take_stdout().expect("the output is piped");
        Self {
            process,
            log: Lines::collected(BufReader::new(reader)),
            output: Lines::collected(output),
        }
    }

    /// Where pushes are received.
    pub fn address(&self) -> SocketAddr {
        self.logged_address("listening")
    }

    /// Where the administration server listens.
    pub fn admin_address(&self) -> SocketAddr {
        self.logged_address("administration listening")
    }

    /// The first line of the log, past or to come, that fits.
    ///
    /// Panics when there is none within [`PATIENCE`], or the program ended.
    pub fn wait_for_log(&self, fits: impl Fn(&str) -> bool) -> String {
        self.log.wait_for(fits)
    }

    /// The first line of the log, past or to come, with this message.
    pub fn wait_for_message(&self, message: &str) -> Value {
        let line = self.wait_for_log(|line| field(line, "message").as_deref() == Some(message));
        serde_json::from_str(&line).expect("a line with a field is JSON")
    }

    /// The first line of the standard output, past or to come, that fits.
    pub fn wait_for_output(&self, fits: impl Fn(&str) -> bool) -> String {
        self.output.wait_for(fits)
    }

    /// All lines logged so far.
    pub fn log(&self) -> Vec<String> {
        self.log.state().lines.clone()
    }

    /// All lines of the standard output so far.
    pub fn output(&self) -> Vec<String> {
        self.output.state().lines.clone()
    }

    /// Sends a signal, such as SIGTERM for a drain.
    pub fn signal(&self, signal: Signal) {
        self.process.signal(signal);
    }

    /// Waits for the end: the exit code, or 128 plus the number of the signal.
    pub fn wait(&self) -> i32 {
        self.process.wait()
    }

    /// Waits for the end: the exit code, and all of the standard output.
    pub fn wait_for_end(&self) -> (i32, String) {
        (self.wait(), self.output.whole())
    }

    /// The exit code once it has ended.
    pub fn exit_code(&self) -> Option<i32> {
        self.process.exit_code()
    }

    /// SIGKILL, and waits until it is gone.
    pub fn kill(&self) {
        self.process.kill();
    }

    /// The process id, for figures that the kernel keeps of it.
    pub fn pid(&self) -> Pid {
        self.process.pid()
    }

    /// Waits until `/readyz` answers 200.
    pub fn ready(&self) {
        eventually("northbridge is ready", || self.is_ready().then_some(()));
    }

    /// Whether `/readyz` answers 200 now.
    pub fn is_ready(&self) -> bool {
        let answer = http::get(self.admin_address(), "/readyz");
        answer.is_some_and(|answer| answer.status == 200)
    }

    /// The value of every series of `/metrics`, under its name and labels as
    /// they stand there: `northbridge_pushes_total{outcome="stored",…}`.
    pub fn metrics(&self) -> BTreeMap<String, f64> {
        let answer = http::get(self.admin_address(), "/metrics").expect("metrics");
        parse_metrics(&answer.text())
    }

    /// The sum of all series of this name whose labels hold all of these texts,
    /// such as `outcome="stored"`.
    pub fn metric(&self, name: &str, labels: &[&str]) -> f64 {
        let metrics = self.metrics();
        let fits = |series: &str| {
            let (found, has) = series.split_once('{').unwrap_or((series, ""));
            found == name && labels.iter().all(|label| has.contains(label))
        };
        let series = metrics.iter().filter(|(series, _)| fits(series));
        series.map(|(_, value)| value).sum()
    }

    /// Waits until [`Northbridge::metric`] is this much.
    pub fn wait_for_metric(&self, name: &str, labels: &[&str], value: f64) {
        eventually(&format!("{name}{labels:?} is {value}"), || {
            let is = self.metric(name, labels);
            ((is - value).abs() < f64::EPSILON).then_some(())
        });
    }

    /// Waits until so many pushes have had this outcome.
    pub fn wait_for_outcome(&self, outcome: &str, count: u32) {
        let label = format!("outcome=\"{outcome}\"");
        self.wait_for_metric("northbridge_pushes_total", &[&label], count.into());
    }

    /// What `/readyz` says now, where the program listens.
    fn readiness(&self) -> Option<String> {
        let log = self.log();
        let listening = log
            .iter()
            .find(|line| field(line, "message").as_deref() == Some("administration listening"))?;
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

/// Runs a command that ends by itself, such as `["topics", "verify"]`.
///
/// The settings are as for [`Northbridge::start`].
pub fn run(arguments: &[&str], settings: &[(&str, &str)]) -> Output {
    let mut program = command(arguments, settings);
    program.stdin(Stdio::null());
    program.output().expect("the program was built")
}

/// A series' name with its labels, and its value; comments are left out.
pub fn parse_metrics(text: &str) -> BTreeMap<String, f64> {
    let series = text.lines().filter(|line| !line.starts_with('#'));
    series
        .filter_map(|line| {
            let (name, value) = line.rsplit_once(' ')?;
            Some((name.to_owned(), value.parse().ok()?))
        })
        .collect()
}

/// The settings reach the program as an operator's would, through the
/// environment; what is set around the tests stays out.
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

/// A field of a JSON log line, whether it stands on top or among `fields`.
fn field(line: &str, name: &str) -> Option<String> {
    let line: Value = serde_json::from_str(line).ok()?;
    let value = line.get(name).or_else(|| line.get("fields")?.get(name))?;
    value.as_str().map(str::to_owned)
}

/// The lines of a stream so far, collected by a thread until its end.
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

    fn wait_for(&self, fits: impl Fn(&str) -> bool) -> String {
        let give_up = Instant::now() + PATIENCE;
        let mut state = self.state();
        let mut seen = 0;
        loop {
            if let Some(line) = state.lines[seen..].iter().find(|line| fits(line)) {
                return line.clone();
            }
            assert!(!state.ended, "the program ended without the awaited line");
            seen = state.lines.len();
            let left = give_up.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "the awaited line did not come");
            let waited = self.changed.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn whole(&self) -> String {
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
