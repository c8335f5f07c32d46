//! A cluster of one broker that asks its clients who they are, and grants
//! nothing that was not granted: TLS, SASL and `StandardAuthorizer`.
//!
//! The clients of the tests themselves use the listener without encryption; they
//! are anonymous there, and anonymous clients may do everything.
//!
//! It must not know which rights the product needs.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::{Cluster, ClusterOptions, Listener, requests};
use crate::support::certificates::Certificates;
use crate::support::eventually;
use crate::support::network::Network;

/// How many users there are, for all tests of a binary together.
const USERS: usize = 160;
/// How long a session by SCRAM-SHA-256 lasts before the client must
/// authenticate again (KIP-368). Clients do so after 85 % to 95 % of it.
const SCRAM_256_SESSION_MS: u32 = 10_000;
/// An address of this machine that no certificate names.
const ANOTHER_HOST: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);
/// TLS and SASL, with PLAIN, SCRAM-SHA-256 and SCRAM-SHA-512.
const SASL: usize = 0;
/// TLS with client certificates; the certificate's common name is the user.
const CERTIFICATES: usize = 1;
/// SASL without TLS, and only with SCRAM-SHA-512.
const CLEAR: usize = 2;
/// TLS without SASL and without client certificates.
const ENCRYPTED: usize = 3;
/// TLS without SASL, advertised at an address that the certificate does not name.
const MISNAMED: usize = 4;
/// TLS without SASL, advertised at an address where somebody else shows a
/// certificate of another authority.
const FOREIGN: usize = 5;

/// The cluster; all connections to the secured listeners pass through a proxy.
pub struct SecuredCluster {
    cluster: Cluster,
    certificates: Certificates,
    _foreign: Certificates,
    network: Network,
    users: AtomicUsize,
}

/// Somebody that the broker knows, by password with every mechanism.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    pub name: String,
    pub password: String,
}

/// What an operation is done to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resource {
    Topic,
    Group,
    Cluster,
    TransactionalId,
}

/// How a right's name selects resources.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pattern {
    Literal,
    Prefixed,
}

/// One ACL that allows something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Right {
    pub resource: Resource,
    pub pattern: Pattern,
    pub name: String,
    /// Its name in Kafka's documentation, such as `DescribeConfigs`.
    pub operation: String,
}

/// The secured cluster that all tests of a binary share; no test may break it.
pub fn cluster() -> &'static SecuredCluster {
    static SECURED: LazyLock<SecuredCluster> = LazyLock::new(SecuredCluster::start);
    &SECURED
}

impl SecuredCluster {
    fn start() -> Self {
        let certificates = Certificates::new();
        let at = |advertised_host, name: &str, protocol| Listener {
            name: name.to_owned(),
            protocol,
            advertised_host,
        };
        let named = |name, protocol| at(Ipv4Addr::LOCALHOST, name, protocol);
        let options = ClusterOptions {
            brokers: 1,
            secured_listeners: vec![
                named("SASL", "SASL_SSL"),
                named("CERTIFICATES", "SSL"),
                named("CLEAR", "SASL_PLAINTEXT"),
                named("ENCRYPTED", "SSL"),
                at(ANOTHER_HOST, "MISNAMED", "SSL"),
                named("FOREIGN", "SSL"),
            ],
            scram: users().flat_map(|user| user.scram()).collect(),
            properties: properties(&certificates),
            ..ClusterOptions::default()
        };
        let cluster = Cluster::start_now(&options, None);
        let foreign = Certificates::new();
        foreign.show_at(cluster.broker(0).link(FOREIGN).advertised);
        Self {
            network: Network::open(&cluster, FOREIGN),
            _foreign: foreign,
            certificates,
            cluster,
            users: AtomicUsize::new(0),
        }
    }

    /// The listener of the tests' own clients.
    pub fn bootstrap(&self) -> String {
        self.cluster.bootstrap()
    }

    /// The listener with TLS and SASL.
    pub fn sasl(&self) -> String {
        self.cluster.zone_bootstrap(SASL)
    }

    /// The listener with TLS and client certificates.
    pub fn certificates(&self) -> String {
        self.cluster.zone_bootstrap(CERTIFICATES)
    }

    /// The listener with SASL without TLS, whose only mechanism is SCRAM-SHA-512.
    pub fn clear(&self) -> String {
        self.cluster.zone_bootstrap(CLEAR)
    }

    /// The listener with TLS, whose clients are anonymous.
    pub fn encrypted(&self) -> String {
        self.cluster.zone_bootstrap(ENCRYPTED)
    }

    /// A listener with TLS whose certificate is valid here, but not at the address
    /// that the broker advertises; and that address.
    pub fn misnamed(&self) -> [String; 2] {
        self.with_advertised(MISNAMED)
    }

    /// Like [`SecuredCluster::misnamed`]; the certificate at the advertised address
    /// is of an unknown authority.
    pub fn foreign(&self) -> [String; 2] {
        self.with_advertised(FOREIGN)
    }

    fn with_advertised(&self, listener: usize) -> [String; 2] {
        let link = self.cluster.broker(0).link(listener);
        [link.listener, link.advertised].map(|address| address.to_string())
    }

    /// The listener with TLS and SASL, at an address that is not among the names
    /// of its certificate.
    pub fn sasl_by_another_name(&self) -> String {
        let link = self.cluster.broker(0).link(SASL);
        let address = SocketAddr::from((ANOTHER_HOST, link.advertised.port()));
        self.network.add_address(address, link);
        address.to_string()
    }

    /// The authority that issued the broker's certificate, and those of clients.
    pub fn authority(&self) -> &Certificates {
        &self.certificates
    }

    /// A user that no other test has, and that has no rights.
    pub fn user(&self) -> User {
        let number = self.users.fetch_add(1, Ordering::Relaxed);
        users().nth(number).expect("enough users: raise USERS")
    }

    /// Grants rights and waits until the broker enforces them.
    pub fn allow(&self, user: &User, rights: &[Right]) {
        let (address, user) = (self.bootstrap(), &user.name);
        let wanted = requests::count_acls(&address, user) + rights.len();
        requests::create_acls(&address, user, rights);
        eventually("the broker enforces the rights", || {
            (requests::count_acls(&address, user) >= wanted).then_some(())
        });
    }

    /// Takes rights away and waits until the broker denies them.
    pub fn revoke(&self, user: &User, rights: &[Right]) {
        let (address, user) = (self.bootstrap(), &user.name);
        let wanted = requests::count_acls(&address, user) - rights.len();
        requests::delete_acls(&address, user, rights);
        eventually("the broker denies the rights", || {
            (requests::count_acls(&address, user) <= wanted).then_some(())
        });
    }

    /// Sets a quota of a user, such as `producer_byte_rate`.
    pub fn set_quota(&self, user: &User, quota: &str, value: f64) {
        requests::set_quota(&self.bootstrap(), &user.name, quota, value);
    }

    /// Changes the password of a user for SCRAM-SHA-256.
    pub fn set_password(&self, user: &User, password: &str) {
        let mut tool = self.cluster.broker(0).tool("kafka.admin.ConfigCommand");
        tool.args(["--bootstrap-server", &self.bootstrap(), "--alter"]);
        tool.args(["--entity-type", "users", "--entity-name", &user.name]);
        tool.arg("--add-config");
        tool.arg(format!("SCRAM-SHA-256=[password={password}]"));
        let output = tool.output().expect("java runs");
        assert!(output.status.success(), "{output:?}");
    }

    /// Closes all connections to the listener with client certificates.
    pub fn reset_certificate_connections(&self) {
        self.network.reset(CERTIFICATES);
    }
}

impl User {
    /// The credentials of SCRAM, in the format of `--add-scram`.
    fn scram(&self) -> [String; 2] {
        let Self { name, password } = self;
        ["SCRAM-SHA-256", "SCRAM-SHA-512"]
            .map(|mechanism| format!("{mechanism}=[name={name},password={password}]"))
    }
}

fn users() -> impl Iterator<Item = User> {
    (0..USERS).map(|number| User {
        name: format!("user-{number}"),
        password: format!("wachtwoord-{number}"),
    })
}

fn properties(certificates: &Certificates) -> Vec<(String, String)> {
    const PLAIN: &str = "org.apache.kafka.common.security.plain.PlainLoginModule required";
    const SCRAM: &str = "org.apache.kafka.common.security.scram.ScramLoginModule required;";
    let key_store = certificates.ca_file().with_file_name("broker.pem");
    write_key_store(certificates, &key_store);
    let plain = users().map(|user| format!(" user_{}=\"{}\"", user.name, user.password));
    let plain = format!("{PLAIN}{};", plain.collect::<String>());
    let session = SCRAM_256_SESSION_MS.to_string();
    let key_store = key_store.display().to_string();
    let trust_store = certificates.ca_file().display().to_string();
    let properties = [
        (
            "authorizer.class.name",
            "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
        ),
        ("super.users", "User:ANONYMOUS"),
        ("ssl.keystore.type", "PEM"),
        ("ssl.keystore.location", &key_store),
        ("ssl.truststore.type", "PEM"),
        ("ssl.truststore.location", &trust_store),
        (
            "listener.name.sasl.sasl.enabled.mechanisms",
            "PLAIN,SCRAM-SHA-256,SCRAM-SHA-512",
        ),
        ("listener.name.sasl.plain.sasl.jaas.config", &plain),
        ("listener.name.sasl.scram-sha-256.sasl.jaas.config", SCRAM),
        ("listener.name.sasl.scram-sha-512.sasl.jaas.config", SCRAM),
        (
            "listener.name.sasl.scram-sha-256.connections.max.reauth.ms",
            &session,
        ),
        ("listener.name.certificates.ssl.client.auth", "required"),
        (
            "listener.name.certificates.ssl.principal.mapping.rules",
            "RULE:^CN=(.*)$/$1/",
        ),
        (
            "listener.name.clear.sasl.enabled.mechanisms",
            "SCRAM-SHA-512",
        ),
        ("listener.name.clear.scram-sha-512.sasl.jaas.config", SCRAM),
    ];
    let owned = |(key, value): (&str, &str)| (key.to_owned(), value.to_owned());
    properties.into_iter().map(owned).collect()
}

/// Writes the broker's key and certificate into one file, as Kafka reads them
/// (KIP-651).
fn write_key_store(certificates: &Certificates, path: &PathBuf) {
    let read = |path: PathBuf| fs::read_to_string(path).expect("a certificate file");
    let key = read(certificates.key_file());
    let chain = read(certificates.certificate_file());
    fs::write(path, key + &chain).expect("the key store");
}

impl std::fmt::Debug for SecuredCluster {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SecuredCluster").finish_non_exhaustive()
    }
}
