//! The reason why a broker's certificate is rejected, from what it says.

use chrono::{DateTime, SecondsFormat, Utc};

use super::{Account, Failure, FailureKind};

/// A certificate that was rejected, for a host.
#[derive(Debug, Clone)]
pub(in crate::kafka) struct RejectedCertificate {
    pub(in crate::kafka) host: String,
    /// Whether `names` contains the host.
    pub(in crate::kafka) is_named: bool,
    pub(in crate::kafka) names: Vec<String>,
    pub(in crate::kafka) issuer: String,
    pub(in crate::kafka) not_before: DateTime<Utc>,
    pub(in crate::kafka) not_after: DateTime<Utc>,
    pub(in crate::kafka) now: DateTime<Utc>,
}

impl RejectedCertificate {
    pub(in crate::kafka) fn failure(&self, account: &Account) -> Failure {
        let reason = None
            .or_else(|| self.outdated())
            .or_else(|| self.misnamed(account))
            .unwrap_or_else(|| self.untrusted(account));
        Failure::certain(FailureKind::Tls, reason)
    }

    fn outdated(&self) -> Option<String> {
        let Self { host, now, .. } = self;
        let time = |time: DateTime<Utc>| time.to_rfc3339_opts(SecondsFormat::Secs, true);
        if *now > self.not_after {
            let end = time(self.not_after);
            return Some(format!(
                "the certificate of {host} expired at {end}: renew it on the broker"
            ));
        }
        (*now < self.not_before).then(|| {
            let (start, now) = (time(self.not_before), time(*now));
            format!("the certificate of {host} is valid from {start}, and it is {now} here: check the clocks")
        })
    }

    fn misnamed(&self, account: &Account) -> Option<String> {
        let Self { host, names, .. } = self;
        (account.verifies_names && !self.is_named).then(|| {
            let names = names.join(", ");
            format!(
                "the certificate is not for {host}, but for {names}: use a name that it contains in kafka.bootstrap_servers and advertised.listeners, or set kafka.options.ssl.endpoint.identification.algorithm to none"
            )
        })
    }

    fn untrusted(&self, account: &Account) -> String {
        let issuer = &self.issuer;
        if account.has_ca {
            format!(
                "certificate verify failed: the CA in kafka.options.ssl.ca.location is not the issuer of the broker's certificate, {issuer}"
            )
        } else {
            format!(
                "certificate verify failed: set kafka.options.ssl.ca.location to the CA that issued the broker's certificate, {issuer}"
            )
        }
    }
}
