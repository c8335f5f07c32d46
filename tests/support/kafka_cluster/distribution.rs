//! Apache Kafka's jars, fetched once from Maven Central into the target
//! directory, and the command that runs a class of theirs.
//!
//! It must not know what a broker is.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use rustix::fs::{FlockOperation, flock};

const KAFKA: &str = "4.3.1";
/// The newest line that Kafka's own `slf4j-api` 1.7 can bind.
const SLF4J: &str = "1.7.36";
const COPY: &str = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies";
const WHAT_TO_INSTALL: &str = "tests on a real Apache Kafka need `java` (17 or newer) and `mvn` \
    on the PATH: install a JRE and Apache Maven, such as the Debian packages \
    openjdk-17-jre-headless and maven";

/// The jars on disk.
#[derive(Debug, Clone)]
pub struct Distribution {
    home: PathBuf,
    options: Vec<String>,
}

impl Distribution {
    /// The jars, fetched by whoever asks first, in this process or another.
    pub fn fetched() -> Self {
        require("java", "-version");
        let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent();
        let home = target
            .expect("a target directory")
            .join(format!("kafka-{KAFKA}"));
        let distribution = Self {
            home,
            options: Vec::new(),
        };
        distribution.once(&distribution.home, fetch);
        distribution
    }

    /// The same jars, run with one more option of the JVM's.
    pub fn with_option(&self, option: String) -> Self {
        let mut changed = self.clone();
        changed.options.push(option);
        changed
    }

    /// The command for a class of Kafka's, in a small and quickly started JVM.
    pub fn java(&self, class: &str) -> Command {
        let mut java = Command::new("java");
        // The serial collector and the first compiler alone: two cores carry
        // three brokers, the tests and the program under test.
        java.args(["-Xmx384m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"]);
        // What a broker says is compared with what its clients did.
        java.arg("-Dorg.slf4j.simpleLogger.showDateTime=true");
        java.arg("-Dorg.slf4j.simpleLogger.dateTimeFormat=HH:mm:ss.SSS");
        java.args(&self.options);
        java.arg("-cp").arg(self.home.join("*")).arg(class);
        java
    }

    /// A path beside the jars.
    pub fn beside(&self, suffix: &str) -> PathBuf {
        let mut path = self.home.clone().into_os_string();
        path.push(suffix);
        PathBuf::from(path)
    }

    /// Has `path` made unless it exists, by one process of all.
    ///
    /// `make` is given another path; what it leaves there becomes `path` when
    /// it is complete, so that a broken run leaves nothing that looks whole.
    pub fn once(&self, path: &Path, make: impl FnOnce(&Path)) {
        let lock = File::create(self.beside(".lock")).expect("the lock file");
        flock(&lock, FlockOperation::LockExclusive).expect("the lock on the jars");
        if path.exists() {
            return;
        }
        let directory = path.parent().expect("the target directory");
        let partial = tempfile::tempdir_in(directory).expect("a directory to work in");
        let whole = partial.path().join("made");
        make(&whole);
        fs::rename(&whole, path).expect("what was made moves into place");
    }
}

fn fetch(jars: &Path) {
    require("mvn", "--version");
    let pom = jars.with_file_name("pom.xml");
    fs::write(&pom, project()).expect("the generated pom.xml");
    let output = Command::new("mvn")
        .args(["--quiet", "--batch-mode", "--file"])
        .arg(&pom)
        .args([COPY, "-DincludeScope=runtime"])
        .arg(format!("-DoutputDirectory={}", jars.display()))
        .output()
        .expect("mvn runs");
    let text = text(&output);
    assert!(output.status.success(), "mvn could not fetch Kafka: {text}");
}

fn require(program: &str, argument: &str) {
    let tried = Command::new(program).arg(argument).output();
    assert!(
        tried.is_ok_and(|output| output.status.success()),
        "{WHAT_TO_INSTALL}"
    );
}

fn text(output: &Output) -> String {
    let out = String::from_utf8_lossy(&output.stdout);
    let err = String::from_utf8_lossy(&output.stderr);
    format!("{out}{err}")
}

fn project() -> String {
    let dependency = |group: &str, artifact: &str, version: &str| {
        format!(
            "<dependency><groupId>{group}</groupId><artifactId>{artifact}</artifactId>\
             <version>{version}</version></dependency>"
        )
    };
    let dependencies = [
        dependency("org.apache.kafka", "kafka_2.13", KAFKA),
        dependency("org.apache.kafka", "kafka-tools", KAFKA),
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
