//! Rights that a broker denies: which operation on which resource, in the words
//! of Kafka's access control lists.

use std::fmt;

use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use super::{Account, Failure, FailureKind};

/// An operation that an access control list can allow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Operation {
    Describe,
    DescribeConfigs,
    Create,
    Read,
    Write,
    IdempotentWrite,
}

/// What an operation is allowed on.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Resource {
    Topic(String),
    Group(String),
    TransactionalId(String),
    Cluster,
}

/// An operation that the cluster denied.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Denial {
    pub(crate) operation: Operation,
    pub(crate) resource: Resource,
}

impl Denial {
    /// Returns the denial that an error code means, if it means one of `attempt`,
    /// which is what the request was for, or of the cluster.
    pub(crate) fn of(code: RDKafkaErrorCode, attempt: Self) -> Option<Self> {
        if code == RDKafkaErrorCode::ClusterAuthorizationFailed {
            let resource = Resource::Cluster;
            return Some(Self {
                resource,
                ..attempt
            });
        }
        // A reader is denied its group, which it does not use, on its way to the
        // topics that it may read.
        let is_denial = match attempt.resource {
            Resource::Topic(_) => code == RDKafkaErrorCode::TopicAuthorizationFailed,
            Resource::Group(_) => code == RDKafkaErrorCode::GroupAuthorizationFailed,
            Resource::TransactionalId(_) => {
                code == RDKafkaErrorCode::TransactionalIdAuthorizationFailed
            }
            Resource::Cluster => false,
        };
        is_denial.then_some(attempt)
    }

    /// Returns the denial that the error of a call means, if it means one.
    pub(crate) fn of_error(error: &KafkaError, attempt: Self) -> Option<Self> {
        Self::of(error.rdkafka_error_code()?, attempt)
    }

    /// Returns the denial that a line of librdkafka's log means. No other report
    /// of librdkafka names a topic that a transaction may not write to.
    pub(in crate::kafka) fn of_log(facility: &str, message: &str) -> Option<Self> {
        if facility != "ADDPARTS" || !message.ends_with("Topic authorization failed") {
            return None;
        }
        // `Failed to add partition "TOPIC" [0] to transaction: ERROR`
        let (_, rest) = message.split_once("Failed to add partition \"")?;
        let (topic, _) = rest.split_once('"')?;
        Some(Self::on_topic(Operation::Write, topic))
    }

    pub(crate) fn new(operation: Operation, resource: Resource) -> Self {
        Self {
            operation,
            resource,
        }
    }

    pub(crate) fn on_topic(operation: Operation, topic: &str) -> Self {
        Self::new(operation, Resource::Topic(topic.to_owned()))
    }

    pub(in crate::kafka) fn is_on_topic(&self) -> bool {
        matches!(self.resource, Resource::Topic(_))
    }

    /// Returns whether the success of an attempt shows that this denial is over.
    /// Whoever may read or write a topic may also describe it, and only an
    /// idempotent producer writes.
    pub(in crate::kafka) fn ends_with_success_of(&self, attempt: &Self) -> bool {
        let is_same = self.operation == attempt.operation || self.operation == Operation::Describe;
        let is_implied =
            self.operation == Operation::IdempotentWrite && attempt.operation == Operation::Write;
        is_implied || (is_same && self.resource == attempt.resource)
    }

    /// Returns it as a failure, which stays until somebody grants the right.
    pub(in crate::kafka) fn failure(&self, account: &Account) -> Failure {
        let grantee = account.grantee();
        let reason = match self.operation {
            // Nobody who may write some topic is denied it, except by older brokers.
            Operation::IdempotentWrite => format!(
                "{self}; grant {grantee} `Write` on the topics, which contains it since Kafka 2.8"
            ),
            Operation::Describe
            | Operation::DescribeConfigs
            | Operation::Create
            | Operation::Read
            | Operation::Write => format!("{self}; grant it to {grantee}"),
        };
        Failure::certain(FailureKind::Authorization, reason)
    }
}

impl fmt::Display for Denial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "not authorized: `{}` on {}",
            self.operation, self.resource
        )
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

impl fmt::Display for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Topic(name) => write!(f, "topic {name}"),
            Self::Group(name) => write!(f, "group {name}"),
            Self::TransactionalId(id) => write!(f, "transactional id {id}"),
            Self::Cluster => f.write_str("the cluster"),
        }
    }
}
