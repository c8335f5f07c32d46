//! A listener that is ingress and streams in one, and keeps the promise or
//! breaks it as it is told.
//!
//! It answers every push, and stores all of a run before the last answer, with
//! the states that follow by the model. It must not know what is proved of it.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::sync::{Arc, Mutex};
use std::thread;

use chrono::{DateTime, TimeDelta};
use northbridge::notification::Rules;
use northbridge::simulate::model::{self, Push};
use northbridge::simulate::world::{Shares, World};
use northbridge::topics::Topic;
use serde_json::Value;

use crate::support::mock::Mock;
use crate::support::northbridge::Northbridge;
use crate::support::records::{NewRecord, produce};

/// So many are pushed.
pub(super) const PUSHES: usize = 20;
/// With this one the odd pushes are of all kinds.
const SEED: u64 = 4;
const STATE_TOPICS: [&str; 4] = [
    "iot.command-state",
    "iot.device-software",
    "iot.upgrade-delta",
    "iot.upgrade-operation",
];

/// A record, and its topic.
#[derive(Debug, Clone)]
pub(super) struct Stored {
    pub(super) topic: Topic,
    pub(super) record: NewRecord,
}

/// What is done to records before they are written.
pub(super) type Change = Arc<dyn Fn(&mut Vec<Stored>) + Send + Sync>;

/// What is pushed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Load {
    /// Of each command one confirmation.
    Commands,
    /// An operation over three devices, each with several results.
    Upgrades,
    /// Results of devices that are all different, none of them as published.
    Oddities,
}

/// What the listener does.
#[derive(Clone)]
pub(super) struct Script {
    pub(super) load: Load,
    /// The code that a push is answered with, by its number.
    pub(super) answering: fn(usize) -> u16,
    pub(super) storing: Change,
    pub(super) writing: Change,
    /// The states follow from the first so many pushes.
    pub(super) states_of: usize,
}

impl Script {
    /// Keeps the promise.
    pub(super) fn of(load: Load) -> Self {
        Self {
            load,
            answering: |_| 200,
            storing: Arc::new(|_| {}),
            writing: Arc::new(|_| {}),
            states_of: PUSHES,
        }
    }

    /// Keeps it, but for this change to what it stores.
    pub(super) fn storing(
        load: Load,
        change: impl Fn(&mut Vec<Stored>) + Send + Sync + 'static,
    ) -> Self {
        Self {
            storing: Arc::new(change),
            ..Self::of(load)
        }
    }

    /// Keeps it, but for this change to the states.
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
    /// The pushes, as `simulate` makes them with [`Load::flags`].
    pub(super) fn world(self) -> World {
        let [upgrades, oddities, devices] = self.shares();
        let shares = Shares {
            repeats: 0,
            others: 0,
            upgrades,
            disorder: 5,
            oddities,
        };
        World::new(SEED, devices.into(), shares, Rules::default())
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
            mock.create(topic);
        }
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/", socket.local_addr().unwrap());
        let script = Arc::new(Mutex::new(script));
        let bootstrap = mock.bootstrap();
        let (brokers, told) = (bootstrap.clone(), Arc::clone(&script));
        thread::spawn(move || listen(&socket, &brokers, &told));
        Self {
            mock: Some(mock),
            bootstrap,
            url,
            script,
        }
    }

    /// Its broker is gone for good.
    pub(super) fn lose_kafka(&mut self) {
        self.mock = None;
    }

    /// From the next run on it does this.
    pub(super) fn turn_to(&self, script: Script) {
        *self.script.lock().unwrap() = script;
    }

    /// A run with the proof of what is stored.
    pub(super) fn proved(&self) -> (Option<i32>, Value) {
        self.proved_with(&[])
    }

    /// A run with both proofs.
    pub(super) fn proved_with_states(&self) -> (Option<i32>, Value) {
        self.proved_with(&["--verify-state", "--catch-up", "200ms"])
    }

    /// The flags of a run with the proof of what is stored.
    pub(super) fn flags(&self) -> Vec<String> {
        let mut flags = self.script.lock().unwrap().load.flags();
        flags.push(format!("--verify={}", self.bootstrap));
        flags
    }

    /// A run that goes on meanwhile. Of a flag that stands twice the later counts.
    pub(super) fn start_run(&self, more: &[&str]) -> Northbridge {
        let mut flags = self.flags();
        let name = |flag: &str| flag.split('=').next().unwrap_or_default().to_owned();
        flags.retain(|flag| more.iter().all(|other| name(other) != name(flag)));
        let flags = flags.iter().map(String::as_str).chain(more.iter().copied());
        let own = ["simulate", &self.url, "--json"];
        Northbridge::start(&own.into_iter().chain(flags).collect::<Vec<_>>(), &[])
    }

    fn proved_with(&self, more: &[&str]) -> (Option<i32>, Value) {
        let flags = self.flags();
        let flags = flags.iter().map(String::as_str).chain(more.iter().copied());
        super::simulate_any(&self.url, &flags.collect::<Vec<_>>())
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

/// The first pushes of a load as they must be stored, with a receipt a second.
pub(super) fn stored(load: Load) -> Vec<Stored> {
    let world = load.world();
    let record = |number: usize| {
        let push = world.push(u64::try_from(number).unwrap());
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

/// The states that follow from records.
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
            let now = script.lock().unwrap().clone();
            number += 1;
            if number % PUSHES == 0 {
                let mut records = stored(now.load);
                let mut states = states(&records[..now.states_of]);
                (now.storing)(&mut records);
                write(bootstrap, &records);
                (now.writing)(&mut states);
                write(bootstrap, &states);
            }
            let code = (now.answering)((number - 1) % PUSHES);
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
