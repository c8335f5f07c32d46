//! How many brokers a cluster has, of which some may be down at the moment, and
//! how many replicas it can therefore hold.
//!
//! Pure: [`admin`](super::admin) gathers the evidence.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use crate::topics::TopicSpec;

/// The settings of a broker that need at least as many brokers as their value.
/// Kafka creates no topic of its own on fewer, so that on a working cluster of
/// one broker the first one is 1.
const REPLICATION_SETTINGS: [&str; 2] = [
    "offsets.topic.replication.factor",
    "default.replication.factor",
];
/// The controllers, as `ID@HOST:PORT`, separated by commas. A controller that is a
/// broker too has the same id as both.
const VOTERS: &str = "controller.quorum.voters";

/// What a cluster shows of its brokers.
#[derive(Debug, Clone, Default)]
pub(super) struct Evidence {
    /// The ids of the brokers that are alive.
    pub(super) alive: BTreeSet<i32>,
    /// The ids in the replica lists of topics; a broker that is down stays in them.
    pub(super) replicas: BTreeSet<i32>,
    /// The settings of a broker; `None` if the cluster does not show them.
    pub(super) settings: Option<BTreeMap<String, String>>,
}

/// The number of brokers of a cluster, and what it is derived from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ClusterSize {
    pub(super) alive: i32,
    /// Those that certainly belong to the cluster, as their ids or a setting show.
    pub(super) certain: i32,
    pub(super) total: i32,
    pub(super) basis: Basis,
}

/// What shows the number of brokers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Basis {
    /// The brokers that are alive; nothing shows that there are others.
    Alive,
    /// The replica lists, in which these brokers are that are down.
    Replicas(Vec<i32>),
    /// A setting of a broker, and its value.
    Setting(&'static str, String),
    /// Nothing: the cluster does not show its settings. The total is the one
    /// that the configuration asks for.
    Unknown,
}

/// The replication that a cluster can give a topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Replication {
    pub(super) factor: i32,
    pub(super) min_insync: i32,
}

impl Evidence {
    /// Returns whether the brokers that are known by their ids are this many, so
    /// that no further evidence is needed.
    pub(super) fn suffices(&self, wanted: i32) -> bool {
        count(self.known()) >= wanted
    }

    /// Returns the number of brokers that the evidence shows. Without the
    /// settings of a broker, the cluster may have as many as are wanted.
    pub(super) fn size(&self, wanted: i32) -> ClusterSize {
        let alive = count(self.alive.iter());
        let down = self.replicas.difference(&self.alive).copied().collect();
        let known = count(self.known());
        let by_id = [(alive, Basis::Alive), (known, Basis::Replicas(down))];
        let by_setting = match &self.settings {
            _ if self.suffices(wanted) => Vec::new(),
            Some(settings)
                if REPLICATION_SETTINGS
                    .iter()
                    .any(|name| settings.contains_key(*name)) =>
            {
                self.sizes_by_setting(settings)
            }
            Some(_) | None => vec![(wanted, Basis::Unknown)],
        };
        let mut size = ClusterSize {
            alive,
            certain: known,
            total: 0,
            basis: Basis::Alive,
        };
        for (total, basis) in by_id.into_iter().chain(by_setting) {
            // Of equal ones the first is the stronger evidence.
            if total > size.total {
                let certain = if basis == Basis::Unknown {
                    known
                } else {
                    total
                };
                size = ClusterSize {
                    certain,
                    total,
                    basis,
                    ..size
                };
            }
        }
        size
    }

    fn sizes_by_setting(&self, settings: &BTreeMap<String, String>) -> Vec<(i32, Basis)> {
        let mut sizes: Vec<_> = REPLICATION_SETTINGS
            .into_iter()
            .filter_map(|name| {
                let value = settings.get(name)?;
                Some((value.parse().ok()?, Basis::Setting(name, value.clone())))
            })
            .collect();
        if let Some(value) = settings.get(VOTERS) {
            let id = |voter: &str| voter.trim().split('@').next()?.parse().ok();
            let voters: BTreeSet<i32> = value.split(',').filter_map(id).collect();
            // Otherwise the controllers are nodes of their own.
            if self.known().any(|broker| voters.contains(broker)) {
                let total = count(voters.union(&self.known().copied().collect()));
                sizes.push((total, Basis::Setting(VOTERS, value.clone())));
            }
        }
        sizes
    }

    fn known(&self) -> impl Iterator<Item = &i32> {
        self.alive.union(&self.replicas)
    }
}

impl ClusterSize {
    /// Returns whether enough brokers are alive for the replicas that the whole
    /// cluster can give a topic.
    pub(super) fn can_hold(&self, spec: &TopicSpec) -> bool {
        self.alive >= Replication::attainable(spec, self.total).factor
    }

    /// Returns the size as if no other broker belonged to the cluster.
    pub(super) fn of_living(self) -> Self {
        let alive = self.alive;
        Self {
            alive,
            certain: alive,
            total: alive,
            basis: Basis::Alive,
        }
    }
}

impl fmt::Display for ClusterSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            alive,
            total,
            basis,
            ..
        } = self;
        match basis {
            Basis::Alive if *total == 1 => write!(f, "the cluster has 1 broker"),
            Basis::Alive => write!(f, "the cluster has {total} brokers"),
            Basis::Replicas(down) => {
                let down: Vec<_> = down.iter().map(ToString::to_string).collect();
                let down = down.join(", ");
                write!(
                    f,
                    "{alive} of {total} brokers are alive; replicas are on {down} too"
                )
            }
            Basis::Setting(name, value) => {
                write!(f, "{alive} of {total} brokers are alive; {name} is {value}")
            }
            Basis::Unknown => write!(
                f,
                "brokers alive: {alive}; the cluster does not show whether it has more, which needs DescribeConfigs on the cluster"
            ),
        }
    }
}

impl Replication {
    /// Returns the replication in the spec, reduced to what this many brokers
    /// can hold.
    pub(super) fn attainable(spec: &TopicSpec, brokers: i32) -> Self {
        let factor = spec.replication_factor.min(brokers.max(1));
        let min_insync = if factor == spec.replication_factor {
            spec.min_insync_replicas
        } else {
            // Writes must survive the loss of one broker.
            spec.min_insync_replicas.min((factor - 1).max(1))
        };
        Self { factor, min_insync }
    }
}

fn count<'a>(brokers: impl Iterator<Item = &'a i32>) -> i32 {
    i32::try_from(brokers.count()).unwrap_or(i32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Settings;
    use crate::topics::{Topic, specs};

    fn size(alive: &[i32], replicas: &[i32], settings: Option<&[(&str, &str)]>) -> ClusterSize {
        let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        let evidence = Evidence {
            alive: alive.iter().copied().collect(),
            replicas: replicas.iter().copied().collect(),
            settings: settings.map(|settings| settings.iter().map(owned).collect()),
        };
        evidence.size(3)
    }

    const OFFSETS: &str = "offsets.topic.replication.factor";
    const DEFAULT: &str = "default.replication.factor";

    #[test]
    fn the_number_of_brokers_is_the_clusters_and_not_that_of_the_moment() {
        let small: &[(&str, &str)] = &[(OFFSETS, "1"), (DEFAULT, "1")];
        let large: &[(&str, &str)] = &[(OFFSETS, "3"), (DEFAULT, "1")];
        let managed: &[(&str, &str)] = &[(OFFSETS, "1"), (DEFAULT, "3")];
        let combined: &[(&str, &str)] = &[(OFFSETS, "1"), (VOTERS, "1@a:9093,2@b:9093,3@c:9093")];
        let dedicated: &[(&str, &str)] =
            &[(OFFSETS, "1"), (VOTERS, "11@a:9093,12@b:9093,13@c:9093")];
        let unrelated: &[(&str, &str)] = &[("log.dirs", "/data")];
        let cases = [
            // All are alive.
            (
                &[1, 2, 3][..],
                &[1, 2, 3][..],
                None,
                3,
                "the cluster has 3 brokers",
            ),
            (&[1, 2, 3, 4], &[], None, 4, "the cluster has 4 brokers"),
            // A small cluster, which is complete.
            (&[1], &[1], Some(small), 1, "the cluster has 1 broker"),
            (
                &[1, 2],
                &[1, 2],
                Some(small),
                2,
                "the cluster has 2 brokers",
            ),
            (&[1], &[], Some(dedicated), 1, "the cluster has 1 broker"),
            // A broker is down, and something shows it.
            (&[1, 2], &[1, 2, 3], None, 3, "replicas are on 3 too"),
            (&[1], &[2], Some(small), 2, "replicas are on 2 too"),
            (
                &[1, 2],
                &[],
                Some(large),
                3,
                "offsets.topic.replication.factor is 3",
            ),
            (
                &[2],
                &[],
                Some(managed),
                3,
                "default.replication.factor is 3",
            ),
            (
                &[1, 2],
                &[],
                Some(combined),
                3,
                "controller.quorum.voters is 1@a",
            ),
            // A broker that is no controller makes the cluster larger.
            (
                &[3, 4],
                &[],
                Some(combined),
                4,
                "controller.quorum.voters is 1@a",
            ),
            // Nothing shows whether one is down.
            (
                &[1, 2],
                &[1, 2],
                None,
                3,
                "does not show whether it has more",
            ),
            (
                &[1],
                &[],
                Some(unrelated),
                3,
                "does not show whether it has more",
            ),
        ];
        for (alive, replicas, settings, total, text) in cases {
            let size = size(alive, replicas, settings);
            assert_eq!(size.total, total, "{alive:?} {replicas:?} {settings:?}");
            assert!(size.to_string().contains(text), "{text}: {size}");
        }
    }

    #[test]
    fn brokers_that_nothing_shows_are_not_certain() {
        assert_eq!(size(&[1], &[], None).certain, 1);
        assert_eq!(size(&[1], &[2], None).certain, 2);
        assert_eq!(size(&[1], &[], Some(&[(OFFSETS, "3")])).certain, 3);
        assert_eq!(size(&[1], &[2, 3], None).certain, 3);
        assert_eq!(size(&[1], &[2, 3], None).of_living().certain, 1);
    }

    #[test]
    fn a_small_cluster_gets_the_replication_that_it_can_hold() {
        let spec = &specs(&Settings::default())[Topic::CommandStatus.index()];
        for (brokers, factor, min_insync) in [(1, 1, 1), (2, 2, 1), (3, 3, 2), (9, 3, 2)] {
            let attainable = Replication::attainable(spec, brokers);
            assert_eq!(attainable, Replication { factor, min_insync }, "{brokers}");
        }
    }
}
