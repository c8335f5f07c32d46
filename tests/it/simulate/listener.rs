//! A listener that imitates ingress and streams, and keeps or breaks their
//! guarantees as scripted.
//!
//! It answers every push. Before the last answer of a run it stores all records
//! of the run and the states that the model computes from them. It must not know
//! what the verification checks.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::sync::{Arc, Mutex};
use std::thread;

use chrono::{DateTime, TimeDelta};
use northbridge::model::{self, Push};
use northbridge::notification::Rules;
use northbridge::simulate::pushes::{PushGenerator, TrafficMix};
use northbridge::topics::Topic;
use serde_json::Value;

use crate::support::mock::Mock;
use crate::support::northbridge::Northbridge;
use crate::support::records::{NewRecord, produce};

/// Pushes of one run.
pub(super) const PUSHES: usize = 20;
/// With this seed the oddities cover all kinds.
const SEED: u64 = 4;
const STATE_TOPICS: [&str; 4] = [
    "iot.command-state",
    "iot.device-software",
    "iot.upgrade-delta",
    "iot.upgrade-operation",
];

/// A record and its topic.
#[derive(Debug, Clone)]
pub(super) struct Stored {
    pub(super) topic: Topic,
    pub(super) record: NewRecord,
}

/// A change to records before they are written.
pub(super) type Change = Arc<dyn Fn(&mut Vec<Stored>) + Send + Sync>;

/// The pushes of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Load {
    /// One confirmation for each command.
    Commands,
    /// One operation on three devices, each with several results.
    Upgrades,
    /// One result for each device, none of them in the published format.
    Oddities,
}

/// The listener's behaviour.
#[derive(Clone)]
pub(super) struct Script {
    pub(super) load: Load,
    /// The status that a push is answered with, by its number in the run.
    pub(super) answering: fn(usize) -> u16,
    /// Applied to the records of the pushes.
    pub(super) storing: Change,
    /// Applied to the states.
    pub(super) writing: Change,
    /// How many of the first pushes the states are computed from.
    pub(super) states_of: usize,
}

impl Script {
    /// Keeps all guarantees.
    pub(super) fn of(load: Load) -> Self {
        Self {
            load,
            answering: |_| 200,
            storing: Arc::new(|_| {}),
            writing: Arc::new(|_| {}),
            states_of: PUSHES,
        }
    }

    /// Keeps all guarantees except for this change to the records.
    pub(super) fn storing(
        load: Load,
        change: impl Fn(&mut Vec<Stored>) + Send + Sync + 'static,
    ) -> Self {
        Self {
            storing: Arc::new(change),
            ..Self::of(load)
        }
    }

    /// Keeps all guarantees except for this change to the states.
    pub(super) fn writing(
        load: Load,
        change: impl Fn(&mut Vec<Stored>) + Send + Sync + 'static,
    ) -> Self {
        Self {
            writing: Arc::new(change),
            ..Self::of(load)
        }
    }
}

impl Load {
    /// The pushes that `simulate` generates with [`Load::flags`].
    pub(super) fn generator(self) -> PushGenerator {
        let [upgrades, oddities, devices] = self.shares();
        let mix = TrafficMix {
            repeats: 0,
            others: 0,
            upgrades,
            disorder: 5,
            oddities,
        };
        PushGenerator::new(SEED, devices.into(), mix, Rules::default())
    }

    fn flags(self) -> Vec<String> {
        let [upgrades, oddities, devices] = self.shares();
        vec![
            format!("--count={PUSHES}"),
            "--connections=1".to_owned(),
            format!("--seed={SEED}"),
            "--repeats=0".to_owned(),
            "--others=0".to_owned(),
            format!("--upgrades={upgrades}"),
            format!("--oddities={oddities}"),
            format!("--devices={devices}"),
        ]
    }

    fn shares(self) -> [u32; 3] {
        match self {
            Self::Commands => [0, 0, 1_000],
            Self::Upgrades => [100, 0, 3],
            Self::Oddities => [100, 100, 1_000],
        }
    }
}

/// A listener with a broker of its own.
pub(super) struct Listener {
    mock: Option<Mock>,
    pub(super) bootstrap: String,
    pub(super) url: String,
    script: Arc<Mutex<Script>>,
}

impl Listener {
    pub(super) fn start(script: Script) -> Self {
        let mock = Mock::start();
        for topic in STATE_TOPICS {
            mock.create_topic(topic);
        }
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/", socket.local_addr().unwrap());
        let script = Arc::new(Mutex::new(script));
        let bootstrap = mock.bootstrap();
        let (brokers, shared) = (bootstrap.clone(), Arc::clone(&script));
        thread::spawn(move || listen(&socket, &brokers, &shared));
        Self {
            mock: Some(mock),
            bootstrap,
            url,
            script,
        }
    }

    /// Stops the broker permanently.
    pub(super) fn stop_kafka(&mut self) {
        self.mock = None;
    }

    /// The mock cluster, which must not have been stopped.
    pub(super) fn kafka(&self) -> &Mock {
        self.mock.as_ref().unwrap()
    }

    /// Replaces the script, from the next run on.
    pub(super) fn set_script(&self, script: Script) {
        *self.script.lock().unwrap() = script;
    }

    /// Runs `simulate` with `--verify`.
    pub(super) fn verify(&self) -> (Option<i32>, Value) {
        self.verify_with(&[])
    }

    /// Runs `simulate` with `--verify` and `--verify-state`.
    pub(super) fn verify_with_states(&self) -> (Option<i32>, Value) {
        self.verify_with(&["--verify-state", "--catch-up", "200ms"])
    }

    /// The flags of a run with `--verify`.
    pub(super) fn flags(&self) -> Vec<String> {
        let mut flags = self.script.lock().unwrap().load.flags();
        flags.push(format!("--verify={}", self.bootstrap));
        flags
    }

    /// Starts a run without waiting for its end. Flags in `more` replace the
    /// default flags of the same name.
    pub(super) fn start_run(&self, more: &[&str]) -> Northbridge {
        let mut flags = self.flags();
        let name = |flag: &str| flag.split('=').next().unwrap_or_default().to_owned();
        flags.retain(|flag| more.iter().all(|other| name(other) != name(flag)));
        let flags = flags.iter().map(String::as_str).chain(more.iter().copied());
        let own = ["simulate", &self.url, "--json"];
        Northbridge::start(&own.into_iter().chain(flags).collect::<Vec<_>>(), &[])
    }

    fn verify_with(&self, more: &[&str]) -> (Option<i32>, Value) {
        let flags = self.flags();
        let flags = flags.iter().map(String::as_str).chain(more.iter().copied());
        super::run_simulate(&self.url, &flags.collect::<Vec<_>>())
    }
}

/// Writes records, each to its topic.
pub(super) fn write(bootstrap: &str, all: &[Stored]) {
    for of_topic in all.chunk_by(|a, b| a.topic == b.topic) {
        let topic = format!("iot.{}", of_topic[0].topic.label());
        let records: Vec<_> = of_topic.iter().map(|one| one.record.clone()).collect();
        produce(bootstrap, &topic, &records);
    }
}

/// The records of a load's pushes, received one second apart.
pub(super) fn stored(load: Load) -> Vec<Stored> {
    let generator = load.generator();
    let record = |number: usize| {
        let push = generator.push(u64::try_from(number).unwrap());
        let received_at = DateTime::UNIX_EPOCH + TimeDelta::seconds(number.try_into().unwrap());
        let record = NewRecord {
            key: push.key.map(String::into_bytes),
            value: Some(push.body.to_vec()),
            ..NewRecord::default()
        };
        Stored {
            topic: push.topic,
            record: record.with_header("ce_time", received_at.to_rfc3339()),
        }
    };
    (0..PUSHES).map(record).collect()
}

/// The states that the model computes from the records.
pub(super) fn states(stored: &[Stored]) -> Vec<Stored> {
    let of = |topic: Topic| {
        let records = stored.iter().filter(move |one| one.topic == topic);
        let pushes = records.map(|one| {
            let time = std::str::from_utf8(&one.record.headers[0].1).ok();
            Push::from_record(one.record.value.as_deref().unwrap(), time, 0)
        });
        pushes.collect::<Vec<_>>()
    };
    let (commands, upgrades) = (of(Topic::CommandStatus), of(Topic::UpgradeResult));
    let states = [
        (Topic::CommandState, model::command_states(&commands)),
        (Topic::DeviceSoftware, model::device_software(&upgrades)),
        (
            Topic::UpgradeOperation,
            model::upgrade_operations(&upgrades),
        ),
    ];
    let records = states.into_iter().flat_map(|(topic, states)| {
        states.into_iter().map(move |(id, state)| Stored {
            topic,
            record: NewRecord::keyed(id, state.to_string()),
        })
    });
    records.collect()
}

fn listen(listener: &TcpListener, bootstrap: &str, script: &Mutex<Script>) {
    let mut number = 0;
    for stream in listener.incoming() {
        let mut stream = BufReader::new(stream.unwrap());
        while read_push(&mut stream).is_some() {
            let script = script.lock().unwrap().clone();
            number += 1;
            if number % PUSHES == 0 {
                let mut records = stored(script.load);
                let mut states = states(&records[..script.states_of]);
                (script.storing)(&mut records);
                write(bootstrap, &records);
                (script.writing)(&mut states);
                write(bootstrap, &states);
            }
            let code = (script.answering)((number - 1) % PUSHES);
            let answer = format!("HTTP/1.1 {code} .\r\ncontent-length: 0\r\n\r\n");
            stream.get_mut().write_all(answer.as_bytes()).unwrap();
        }
    }
}

fn read_push(stream: &mut impl BufRead) -> Option<()> {
    let mut length = None;
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line).ok()? == 0 {
            return None;
        }
        let line = line.trim_end().to_lowercase();
        if let Some(value) = line.strip_prefix("content-length: ") {
            length = value.parse().ok();
        }
        if line.is_empty() {
            return stream.read_exact(&mut vec![0; length?]).ok();
        }
    }
}
