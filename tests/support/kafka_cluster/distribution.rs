//! Apache Kafka's jars, downloaded once from Maven Central into the target
//! directory, and the command that runs a class from them.
//!
//! It must not know what a broker is.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use rustix::fs::{FlockOperation, flock};

/// The version unless [`VERSION`] names another one.
const DEFAULT_VERSION: &str = "4.3.1";
/// The environment variable with another version of Kafka, from 2.8 on.
const VERSION: &str = "NORTHBRIDGE_TEST_KAFKA_VERSION";
/// The first version whose `KRaft` is meant for use; older ones need `ZooKeeper`.
const FIRST_WITH_KRAFT: (u32, u32) = (3, 3);
/// The newest release that Kafka's `slf4j-api` 1.7 can bind to.
const SLF4J: &str = "1.7.36";
/// What Kafka's older versions log with; of several, SLF4J would take any.
const OTHER_LOGGING: &str = "slf4j-reload4j,slf4j-log4j12";
const COPY: &str = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies";
const INSTALL_HINT: &str = "tests on a real Apache Kafka need `java` (17 or newer) and `mvn` \
    on the PATH: install a JRE and Apache Maven, such as the Debian packages \
    openjdk-17-jre-headless and maven";

/// The jars on disk, and the JVM options to run them with.
#[derive(Debug, Clone)]
pub struct Distribution {
    version: String,
    home: PathBuf,
    options: Vec<String>,
}

impl Distribution {
    /// Downloads the jars unless this or another process already has.
    pub fn download() -> Self {
        require("java", "-version");
        let version = std::env::var(VERSION).unwrap_or_else(|_| DEFAULT_VERSION.to_owned());
        let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent();
        let home = target
            .expect("a target directory")
            .join(format!("kafka-{version}"));
        let distribution = Self {
            version,
            home,
            options: Vec::new(),
        };
        distribution.once(&distribution.home, |jars| {
            download(&distribution.version, jars);
        });
        distribution
    }

    /// Returns whether brokers of this version need `ZooKeeper`.
    pub fn needs_zookeeper(&self) -> bool {
        let mut numbers = self.version.split('.').map(str::parse);
        let (Some(Ok(major)), Some(Ok(minor))) = (numbers.next(), numbers.next()) else {
            panic!(
                "{VERSION} must be a version of Kafka, but is {}",
                self.version
            );
        };
        (major, minor) < FIRST_WITH_KRAFT
    }

    /// The same jars, run with one more JVM option.
    pub fn with_option(&self, option: String) -> Self {
        let mut changed = self.clone();
        changed.options.push(option);
        changed
    }

    /// The command that runs one of Kafka's classes in a small JVM that starts
    /// quickly.
    pub fn java(&self, class: &str) -> Command {
        let mut java = Command::new("java");
        // Serial GC and C1 only: two cores run three brokers, the tests and the
        // program under test.
        java.args(["-Xmx384m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"]);
        // Timestamps allow the log to be correlated with the clients' logs.
        java.arg("-Dorg.slf4j.simpleLogger.showDateTime=true");
        java.arg("-Dorg.slf4j.simpleLogger.dateTimeFormat=HH:mm:ss.SSS");
        java.args(&self.options);
        java.arg("-cp").arg(self.home.join("*")).arg(class);
        java
    }

    /// The path of the jars with a suffix appended.
    pub fn sibling(&self, suffix: &str) -> PathBuf {
        let mut path = self.home.clone().into_os_string();
        path.push(suffix);
        PathBuf::from(path)
    }

    /// Calls `create` if `path` does not exist yet, in one process at a time.
    ///
    /// `create` writes to a temporary path, which is then renamed to `path`, so
    /// an interrupted run never leaves an incomplete result.
    pub fn once(&self, path: &Path, create: impl FnOnce(&Path)) {
        let lock = File::create(self.sibling(".lock")).expect("the lock file");
        flock(&lock, FlockOperation::LockExclusive).expect("the lock on the jars");
        if path.exists() {
            return;
        }
        let directory = path.parent().expect("the target directory");
        let temporary = tempfile::tempdir_in(directory).expect("a temporary directory");
        let complete = temporary.path().join("complete");
        create(&complete);
        fs::rename(&complete, path).expect("the result moves into place");
    }
}

fn download(version: &str, jars: &Path) {
    require("mvn", "--version");
    let pom = jars.with_file_name("pom.xml");
    fs::write(&pom, project(version)).expect("the generated pom.xml");
    let output = Command::new("mvn")
        .args(["--quiet", "--batch-mode", "--file"])
        .arg(&pom)
        .args([COPY, "-DincludeScope=runtime"])
        .arg(format!("-DexcludeArtifactIds={OTHER_LOGGING}"))
        .arg(format!("-DoutputDirectory={}", jars.display()))
        .output()
        .expect("mvn runs");
    let text = text(&output);
    assert!(
        output.status.success(),
        "mvn could not download Kafka: {text}"
    );
}

fn require(program: &str, argument: &str) {
    let tried = Command::new(program).arg(argument).output();
    assert!(
        tried.is_ok_and(|output| output.status.success()),
        "{INSTALL_HINT}"
    );
}

fn text(output: &Output) -> String {
    let out = String::from_utf8_lossy(&output.stdout);
    let err = String::from_utf8_lossy(&output.stderr);
    format!("{out}{err}")
}

fn project(kafka: &str) -> String {
    let dependency = |group: &str, artifact: &str, version: &str| {
        format!(
            "<dependency><groupId>{group}</groupId><artifactId>{artifact}</artifactId>\
             <version>{version}</version></dependency>"
        )
    };
    let dependencies = [
        dependency("org.apache.kafka", "kafka_2.13", kafka),
        dependency("org.apache.kafka", "kafka-tools", kafka),
        dependency("org.slf4j", "slf4j-simple", SLF4J),
    ];
    format!(
        "<project xmlns=\"http://maven.apache.org/POM/4.0.0\">\
         <modelVersion>4.0.0</modelVersion><groupId>northbridge.test</groupId>\
         <artifactId>kafka</artifactId><version>1</version><packaging>pom</packaging>\
         <dependencies>{}</dependencies></project>",
        dependencies.concat()
    )
}
