//! Failures of the connection to one broker, read from the line that librdkafka
//! logs about each (facility `FAIL`).
//!
//! The line is the one report that every failed connection has: librdkafka's
//! error callback leaves out connections that the broker closed, and rdkafka
//! calls it twice for producers and once for consumers.

use super::account::Protocol;
use super::{Account, Failure, FailureKind};

use FailureKind::{Authentication, Connect, Other, Resolve, Timeout, Tls};

/// A failed connection to one broker, in librdkafka's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::kafka) struct ConnectionFailure<'a> {
    /// `HOST:PORT`.
    pub(in crate::kafka) address: &'a str,
    /// Whether the address is one of `bootstrap.servers`, of which the broker's
    /// number is not known yet.
    pub(in crate::kafka) is_bootstrap: bool,
    /// What happened, without the broker and the state.
    text: &'a str,
    /// The state in which it happened, and for how long it had lasted.
    state: &'a str,
    age_ms: u64,
}

/// The first bytes of a TLS alert, type 21 of version 3.x (RFC 8446, section
/// 5.1), read as the length of a Kafka response.
const TLS_ALERT: std::ops::RangeInclusive<u32> = 0x1503_0000..=0x1503_ffff;
/// The age up to which a connection that ends may never have been welcome.
const JUST_CONNECTED_MS: u64 = 2_000;
/// `HTTP`, read as the length of a Kafka response.
const HTTP: u32 = 0x4854_5450;

impl<'a> ConnectionFailure<'a> {
    /// Reads `[thrd:NAME]: NAME: TEXT (after 3ms in state CONNECT)`, in which
    /// NAME is `PROTOCOL://HOST:PORT/ID`. A coordinator's NAME is not an address,
    /// so its TEXT begins with one.
    pub(in crate::kafka) fn parse(line: &'a str) -> Option<Self> {
        let line = match line.strip_prefix("[thrd:") {
            Some(thread) => thread.split_once("]: ")?.1,
            None => line,
        };
        let (name, mut text) = line.split_once(": ")?;
        let mut place = name;
        if !name.contains('/') {
            (place, text) = text.split_once(": ")?;
        }
        let place = place.split_once("://").map_or(place, |(_, rest)| rest);
        let (address, id) = place.rsplit_once('/').unwrap_or((place, ""));
        // A long text leaves no room for the rest.
        let (text, rest) = text.rsplit_once(" (after ").unwrap_or((text, ""));
        let (age, state) = rest.split_once("ms in state ").unwrap_or_default();
        Some(Self {
            address,
            is_bootstrap: id == "bootstrap",
            text,
            state: state.split([',', ')']).next().unwrap_or_default(),
            age_ms: age.parse().unwrap_or(u64::MAX),
        })
    }

    /// Returns what the failure means.
    pub(in crate::kafka) fn classify(&self, account: &Account) -> Failure {
        None.or_else(|| self.unresolved())
            .or_else(|| self.failed_handshake(account))
            .or_else(|| self.rejected_credentials(account))
            .or_else(|| self.foreign_response(account))
            .or_else(|| self.closed(account))
            .or_else(|| self.timed_out(account))
            .or_else(|| self.unreachable())
            .unwrap_or_else(|| {
                let text = account.mask(self.text);
                Failure::may_heal(Other, format!("{}: {text}", self.address))
            })
    }

    /// Returns the failure that is left of a guess once a broker has answered.
    pub(in crate::kafka) fn as_outage(&self) -> Failure {
        let reason = format!("{} closed the connection", self.address);
        Failure::may_heal(Connect, reason)
    }

    /// Returns whether a connection existed, on which requests may have been sent.
    pub(in crate::kafka) fn was_connected(&self) -> bool {
        !matches!(self.state, "INIT" | "DOWN" | "TRY_CONNECT" | "CONNECT")
    }

    /// Returns whether the broker's certificate was rejected; which of several
    /// reasons it was, OpenSSL does not say.
    pub(in crate::kafka) fn is_unverified_certificate(&self) -> bool {
        self.text.contains("certificate verify failed")
    }

    pub(super) fn host(&self) -> &'a str {
        self.address
            .rsplit_once(':')
            .map_or(self.address, |(host, _)| host)
    }

    fn unresolved(&self) -> Option<Failure> {
        let rest = self.text.strip_prefix("Failed to resolve ")?;
        let cause = rest.rsplit_once("': ").map_or(rest, |(_, cause)| cause);
        let host = self.host();
        let todo = if self.is_bootstrap {
            "check kafka.bootstrap_servers and the DNS"
        } else {
            "a broker advertises this name; correct its advertised.listeners, or the DNS"
        };
        let reason = format!("cannot resolve {host}: {cause}; {todo}");
        // A DNS server that does not answer (EAI_AGAIN) may do so later.
        Some(if cause.contains("Temporary failure") {
            Failure::may_heal(Resolve, reason)
        } else {
            Failure::certain(Resolve, reason)
        })
    }

    /// TLS, up to and including the alerts that arrive with the first response
    /// (a TLS 1.3 server judges the client's certificate after its own
    /// handshake).
    fn failed_handshake(&self, account: &Account) -> Option<Failure> {
        let handshake = self.text.strip_prefix("SSL handshake failed: ");
        let receive = self.text.strip_prefix("Receive failed: error:");
        let verify = self
            .text
            .strip_prefix("Failed to verify broker certificate");
        let cause = handshake.or(receive).or(verify)?;
        if self.is_unverified_certificate() {
            return Some(unverified(account));
        }
        if cause.starts_with("Disconnected") || cause.starts_with("SSL transport error") {
            return None;
        }
        let has = |parts: &[&str]| parts.iter().any(|part| cause.contains(part));
        if has(&[
            "wrong version number",
            "packet length too long",
            "http request",
        ]) {
            return Some(Failure::certain(Tls, plaintext_listener(account)));
        }
        if has(&["alert certificate expired"]) {
            let reason = "the client certificate has expired: renew the one in kafka.options.ssl.certificate.location";
            return Some(Failure::certain(Tls, reason));
        }
        let of_client_certificate = [
            "alert certificate required",
            "alert bad certificate",
            "alert certificate unknown",
            "alert unknown ca",
            "alert handshake failure",
            "unexpected message",
        ];
        if has(&of_client_certificate) {
            return Some(Failure::certain(Tls, client_certificate(account)));
        }
        let cause = account.mask(cause);
        let reason = format!("the TLS handshake with {} failed: {cause}", self.address);
        Some(Failure::certain(Tls, reason))
    }

    fn rejected_credentials(&self, account: &Account) -> Option<Failure> {
        if let Some(rest) = self.text.strip_prefix("SASL authentication ") {
            let (_, cause) = rest.split_once(": ")?;
            return Some(sasl_failed(account, cause));
        }
        if let Some(cause) = self
            .text
            .strip_prefix("Failed to initialize SASL authentication: ")
        {
            let cause = account.mask(cause);
            let reason = format!("SASL authentication cannot begin: {cause}");
            return Some(Failure::may_heal(Authentication, reason));
        }
        let (_, rest) = self.text.split_once(" mechanism handshake failed: ")?;
        let (cause, offered) = rest.split_once(": broker's supported mechanisms: ")?;
        Some(mechanism_rejected(account, cause, offered))
    }

    /// A response that is none of Kafka's: its first bytes tell whose it is.
    fn foreign_response(&self, account: &Account) -> Option<Failure> {
        let rest = self
            .text
            .strip_prefix("Receive failed: Invalid response size ")?;
        let size: u32 = rest.split(' ').next()?.parse().ok()?;
        if TLS_ALERT.contains(&size) {
            return Some(Failure::certain(Tls, tls_listener(account)));
        }
        let address = self.address;
        (size == HTTP).then(|| {
            let reason =
                format!("{address} answers in HTTP: it is not a Kafka listener; check its port");
            Failure::certain(Other, reason)
        })
    }

    fn closed(&self, account: &Account) -> Option<Failure> {
        let is_closed = ["Disconnected", "Connection reset by peer", "Broken pipe"];
        if !is_closed.iter().any(|text| self.text.contains(text)) {
            return None;
        }
        // librdkafka means to add these guesses to its text, and does so only if
        // its format string says "Disconnected".
        if self.state == "SSL_HANDSHAKE" {
            return Some(Failure::guess(Tls, plaintext_listener(account)));
        }
        if self.state == "APIVERSION_QUERY" && !account.protocol.tls {
            return Some(Failure::guess(Tls, tls_listener(account)));
        }
        // A listener with SASL answers the first request of anybody, and ends the
        // connection at the next one.
        if self.state == "UP" && self.age_ms < JUST_CONNECTED_MS && !account.protocol.sasl {
            let protocol = Protocol {
                sasl: true,
                ..account.protocol
            };
            let reason = format!(
                "the listener requires SASL: set kafka.options.security.protocol to {protocol}, and sasl.mechanism"
            );
            return Some(Failure::guess(Authentication, reason));
        }
        Some(self.as_outage())
    }

    fn timed_out(&self, account: &Account) -> Option<Failure> {
        let text = self.text;
        if !(text.contains("timed out") || text.contains("Timed out")) {
            return None;
        }
        let address = self.address;
        let reason = if self.state == "CONNECT" || text.starts_with("Connect to") {
            format!("cannot connect to {address}: timed out; check the address and firewalls")
        } else {
            let protocol = account.protocol;
            format!(
                "{address} accepts connections but does not answer: check that it is a Kafka listener, and of security.protocol {protocol}"
            )
        };
        Some(Failure::may_heal(Timeout, reason))
    }

    fn unreachable(&self) -> Option<Failure> {
        let address = self.address;
        let (attempt, cause) = self.text.rsplit_once(": ")?;
        if attempt.starts_with("Connect to") || attempt.starts_with("Failed to connect to") {
            let reason = format!(
                "cannot connect to {address}: {cause}; check that a broker is running at this address"
            );
            return Some(Failure::may_heal(Connect, reason));
        }
        let is_connection = ["Send failed", "Receive failed", "ApiVersionRequest failed"];
        let is_connection = is_connection.iter().any(|start| attempt.starts_with(start));
        is_connection.then(|| {
            Failure::may_heal(
                Connect,
                format!("the connection to {address} failed: {cause}"),
            )
        })
    }
}

fn unverified(account: &Account) -> Failure {
    let reason = if account.has_ca {
        "certificate verify failed: the CA in kafka.options.ssl.ca.location did not issue the broker's certificate, or the certificate is not for this address"
    } else {
        "certificate verify failed: set kafka.options.ssl.ca.location to the CA of the brokers' certificates"
    };
    Failure::certain(Tls, reason)
}

fn plaintext_listener(account: &Account) -> String {
    let protocol = Protocol {
        tls: false,
        ..account.protocol
    };
    format!(
        "a plaintext listener was spoken to in TLS: set kafka.options.security.protocol to {protocol}"
    )
}

fn tls_listener(account: &Account) -> String {
    let protocol = Protocol {
        tls: true,
        ..account.protocol
    };
    format!(
        "a TLS listener was spoken to in plaintext: set kafka.options.security.protocol to {protocol}"
    )
}

fn client_certificate(account: &Account) -> &'static str {
    if account.has_certificate {
        "the broker rejected the client certificate in kafka.options.ssl.certificate.location: its CA must be one that the broker trusts"
    } else {
        "the listener requires a client certificate: set kafka.options.ssl.certificate.location and ssl.key.location"
    }
}

fn sasl_failed(account: &Account, cause: &str) -> Failure {
    // The broker's answer is missing, so the credentials were not judged.
    if let Some(cause) = cause.strip_prefix("SaslAuthenticateRequest failed: ") {
        let kind = if cause.contains("imed out") {
            Timeout
        } else {
            Connect
        };
        let reason = format!("the connection failed during SASL authentication: {cause}");
        return Failure::may_heal(kind, reason);
    }
    let (user, cause) = (account.as_user(), account.mask(cause));
    let hint = account.password_hint;
    let reason = format!(
        "SASL authentication failed{user}: check kafka.options.sasl.username, sasl.password and sasl.mechanism{hint}; the answer was: {cause}"
    );
    Failure::certain(Authentication, reason)
}

fn mechanism_rejected(account: &Account, cause: &str, offered: &str) -> Failure {
    let mechanism = &account.mechanism;
    match offered {
        // The request has no answer.
        "(n/a)" => {
            let reason = format!("the connection failed during SASL authentication: {cause}");
            Failure::may_heal(Connect, reason)
        }
        "" => {
            let protocol = Protocol {
                sasl: false,
                ..account.protocol
            };
            let reason = format!(
                "the listener does not use SASL: set kafka.options.security.protocol to {protocol}"
            );
            Failure::certain(Authentication, reason)
        }
        offered => {
            let offered = account.mask(offered);
            let reason = format!(
                "the listener does not offer SASL mechanism {mechanism}: set kafka.options.sasl.mechanism to one of {offered}"
            );
            Failure::certain(Authentication, reason)
        }
    }
}
