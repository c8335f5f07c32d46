//! Apache Kafka's jars, fetched once from Maven Central into the target
//! directory, and the command that runs a class of theirs.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::LazyLock;

use rustix::fs::{FlockOperation, flock};

const KAFKA: &str = "4.3.1";
/// The newest line that Kafka's own `slf4j-api` 1.7 can bind.
const SLF4J: &str = "1.7.36";
const COPY: &str = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies";
const WHAT_TO_INSTALL: &str = "tests on a real Apache Kafka need `java` (17 or newer) and `mvn` \
    on the PATH: install a JRE and Apache Maven, such as the Debian packages \
    openjdk-17-jre-headless and maven";

/// The jars on disk.
#[derive(Debug)]
pub struct Distribution {
    classpath: String,
}

impl Distribution {
    /// The command for a class of Kafka's, in a small and quickly started JVM.
    pub fn java(&self, class: &str) -> Command {
        let mut java = Command::new("java");
        // The serial collector and the first compiler alone: two cores carry
        // three brokers, the tests and the program under test.
        java.args(["-Xmx384m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"]);
        java.args(["-cp", &self.classpath, class]);
        java
    }
}

/// The jars, fetched by whoever asks first, in this process or another.
pub fn fetched() -> &'static Distribution {
    static FETCHED: LazyLock<Distribution> = LazyLock::new(|| {
        require("java", "-version");
        let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent();
        let home = target
            .expect("a target directory")
            .join(format!("kafka-{KAFKA}"));
        fetch_once(&home);
        Distribution {
            classpath: format!("{}/*", home.display()),
        }
    });
    &FETCHED
}

fn fetch_once(home: &Path) {
    let lock = File::create(with_suffix(home, ".lock")).expect("the lock file");
    flock(&lock, FlockOperation::LockExclusive).expect("the lock on the jars");
    if !home.exists() {
        fetch(home);
    }
}

/// Renamed when complete: a broken download leaves nothing that looks whole.
fn fetch(home: &Path) {
    require("mvn", "--version");
    let partial = with_suffix(home, ".partial");
    let _ = fs::remove_dir_all(&partial);
    fs::create_dir_all(&partial).expect("the directory of the download");
    let pom = partial.join("pom.xml");
    fs::write(&pom, project()).expect("the generated pom.xml");
    let jars = partial.join("jars");
    let output = Command::new("mvn")
        .args(["--quiet", "--batch-mode", "--file"])
        .arg(&pom)
        .args([COPY, "-DincludeScope=runtime"])
        .arg(format!("-DoutputDirectory={}", jars.display()))
        .output()
        .expect("mvn runs");
    assert!(
        output.status.success(),
        "mvn could not fetch Kafka: {}",
        text(&output)
    );
    fs::rename(&jars, home).expect("the jars move into place");
    let _ = fs::remove_dir_all(&partial);
}

fn require(program: &str, argument: &str) {
    let tried = Command::new(program).arg(argument).output();
    assert!(
        tried.is_ok_and(|output| output.status.success()),
        "{WHAT_TO_INSTALL}"
    );
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
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
