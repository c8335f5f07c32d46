//! What a failure that librdkafka reports means: its kind, and a sentence that
//! says what is wrong and what to do.
//!
//! Pure: [`failures`](super::failures) keeps what fails at the moment. The texts
//! that are recognized here are those of librdkafka 2.12 (`rdkafka_broker.c`,
//! `rdkafka_transport.c`, `rdkafka_ssl.c`, `rdkafka_request.c`) and of the
//! OpenSSL that it contains.

mod account;
mod connection;
mod denial;
mod rejected_certificate;
#[cfg(test)]
mod tests;

pub(super) use account::Account;
pub(super) use connection::ConnectionFailure;
pub(crate) use denial::{Denial, Operation, Resource};
pub(super) use rejected_certificate::RejectedCertificate;

/// The closed set of kinds, a label of `northbridge_kafka_errors_total`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FailureKind {
    /// A name has no address.
    Resolve,
    /// No connection, or one that a broker closed.
    Connect,
    /// The handshake failed, or one side does not use TLS.
    Tls,
    /// The broker rejected the client's credentials, or wants some.
    Authentication,
    /// The client may not do what it asked for.
    Authorization,
    /// No answer in time.
    Timeout,
    Other,
}

/// A failure in words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    pub(super) kind: FailureKind,
    /// What is wrong and what to do; never contains a secret.
    pub(super) reason: String,
    pub(super) certainty: Certainty,
}

/// How far a failure can be trusted to be what it looks like, and to stay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Certainty {
    /// Repeating the attempt does not help.
    Certain,
    /// It may be over at the next attempt.
    MayHeal,
    /// Its usual cause is the one that the reason names, as long as no broker
    /// has answered yet; a broker that stops or starts looks the same.
    Guess,
}

impl FailureKind {
    pub(super) const ALL: [Self; 7] = [
        Self::Resolve,
        Self::Connect,
        Self::Tls,
        Self::Authentication,
        Self::Authorization,
        Self::Timeout,
        Self::Other,
    ];

    /// Returns the position in [`FailureKind::ALL`].
    pub(super) fn index(self) -> usize {
        let mut kinds = Self::ALL.iter();
        kinds.position(|kind| *kind == self).unwrap_or_default()
    }

    pub(super) fn label(self) -> &'static str {
        match self {
            Self::Resolve => "resolve",
            Self::Connect => "connect",
            Self::Tls => "tls",
            Self::Authentication => "authentication",
            Self::Authorization => "authorization",
            Self::Timeout => "timeout",
            Self::Other => "other",
        }
    }

    /// Returns whether somebody has to change a setting, a certificate or a
    /// right. The other kinds are also what an outage looks like.
    pub(super) fn needs_action(self) -> bool {
        match self {
            Self::Resolve | Self::Tls | Self::Authentication | Self::Authorization => true,
            Self::Connect | Self::Timeout | Self::Other => false,
        }
    }
}

impl Failure {
    pub(super) fn certain(kind: FailureKind, reason: impl Into<String>) -> Self {
        Self::new(kind, Certainty::Certain, reason)
    }

    pub(super) fn may_heal(kind: FailureKind, reason: impl Into<String>) -> Self {
        Self::new(kind, Certainty::MayHeal, reason)
    }

    pub(super) fn guess(kind: FailureKind, reason: impl Into<String>) -> Self {
        Self::new(kind, Certainty::Guess, reason)
    }

    /// Returns it with the address at which it happens. No setting of the client
    /// contains that.
    pub(super) fn at_advertised(self, address: &str) -> Self {
        let reason = format!("at {address}, which a broker advertises: {}", self.reason);
        Self { reason, ..self }
    }

    /// Returns whether the reason says it all, so that no error of a call adds to it.
    pub(super) fn is_explained(&self) -> bool {
        self.kind.needs_action() || self.certainty == Certainty::Certain
    }

    fn new(kind: FailureKind, certainty: Certainty, reason: impl Into<String>) -> Self {
        let reason = reason.into();
        Self {
            kind,
            reason,
            certainty,
        }
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.reason)
    }
}
