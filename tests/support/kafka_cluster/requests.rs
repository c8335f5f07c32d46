//! The administrative requests that rdkafka lacks: ACLs and quotas, in the
//! versions of Kafka's protocol that brokers from 2.6 to 4.x have.
//!
//! It must not know who may do what.

use std::io::{Read, Write};
use std::net::TcpStream;

use super::secured::{Pattern, Resource, Right};

/// `CreateAcls`, version 1.
const CREATE_ACLS: (i16, i16) = (30, 1);
/// `DescribeAcls`, version 1.
const DESCRIBE_ACLS: (i16, i16) = (29, 1);
/// `DeleteAcls`, version 1.
const DELETE_ACLS: (i16, i16) = (31, 1);
/// `AlterClientQuotas`, version 0.
const ALTER_QUOTAS: (i16, i16) = (49, 0);
/// The code of "any" in every filter.
const ANY: i8 = 1;
const ALLOW: i8 = 3;

/// Grants all rights to a user, from every host. The broker may need a moment
/// to enforce them: see [`count_acls`].
pub(super) fn create_acls(address: &str, user: &str, rights: &[Right]) {
    let mut answer = Body::of_acls(user, rights).send(address, CREATE_ACLS);
    answer.i32();
    for _ in 0..answer.i32() {
        answer.assert_success();
    }
}

/// Takes rights away that [`create_acls`] has granted.
pub(super) fn delete_acls(address: &str, user: &str, rights: &[Right]) {
    // A filter has the fields of an ACL, and matches the one that has the same.
    let mut answer = Body::of_acls(user, rights).send(address, DELETE_ACLS);
    answer.i32();
    answer.i32();
    answer.assert_success();
}

/// The number of rights of a user that the broker enforces.
pub(super) fn count_acls(address: &str, user: &str) -> usize {
    let mut body = Body::default();
    body.i8(ANY);
    body.null();
    body.i8(ANY);
    body.string(&format!("User:{user}"));
    body.null();
    body.i8(ANY);
    body.i8(ANY);
    let mut answer = body.send(address, DESCRIBE_ACLS);
    answer.i32();
    answer.assert_success();
    let mut count = 0;
    for _ in 0..answer.i32() {
        answer.i8();
        answer.string();
        answer.i8();
        for _ in 0..answer.i32() {
            answer.string();
            answer.string();
            answer.i8();
            answer.i8();
            count += 1;
        }
    }
    count
}

/// Sets a quota of a user, such as `producer_byte_rate`.
pub(super) fn set_quota(address: &str, user: &str, quota: &str, value: f64) {
    let mut body = Body::default();
    body.i32(1);
    body.i32(1);
    body.string("user");
    body.string(user);
    body.i32(1);
    body.string(quota);
    body.0.extend(value.to_be_bytes());
    body.i8(0);
    body.i8(0);
    let mut answer = body.send(address, ALTER_QUOTAS);
    answer.i32();
    answer.i32();
    answer.assert_success();
}

fn resource_code(resource: Resource) -> i8 {
    match resource {
        Resource::Topic => 2,
        Resource::Group => 3,
        Resource::Cluster => 4,
        Resource::TransactionalId => 5,
    }
}

fn operation_code(operation: &str) -> i8 {
    match operation {
        "Read" => 3,
        "Write" => 4,
        "Create" => 5,
        "Describe" => 8,
        "DescribeConfigs" => 10,
        "IdempotentWrite" => 12,
        other => panic!("no operation is called {other}"),
    }
}

/// The body of a request without flexible fields (KIP-482).
#[derive(Default)]
struct Body(Vec<u8>);

impl Body {
    fn of_acls(user: &str, rights: &[Right]) -> Self {
        let mut body = Self::default();
        body.i32(i32::try_from(rights.len()).unwrap());
        for right in rights {
            body.i8(resource_code(right.resource));
            body.string(&right.name);
            body.i8(match right.pattern {
                Pattern::Literal => 3,
                Pattern::Prefixed => 4,
            });
            body.string(&format!("User:{user}"));
            body.string("*");
            body.i8(operation_code(&right.operation));
            body.i8(ALLOW);
        }
        body
    }

    fn i8(&mut self, value: i8) {
        self.0.extend(value.to_be_bytes());
    }

    fn i16(&mut self, value: i16) {
        self.0.extend(value.to_be_bytes());
    }

    fn i32(&mut self, value: i32) {
        self.0.extend(value.to_be_bytes());
    }

    fn string(&mut self, text: &str) {
        self.i16(i16::try_from(text.len()).unwrap());
        self.0.extend(text.as_bytes());
    }

    fn null(&mut self) {
        self.i16(-1);
    }

    /// Sends it as a request of this API key and version.
    fn send(self, address: &str, (key, version): (i16, i16)) -> Answer {
        let mut request = Self::default();
        request.i16(key);
        request.i16(version);
        request.i32(0);
        request.string("tests");
        request.0.extend(self.0);
        let mut connection = TcpStream::connect(address).expect("a running broker");
        let length = i32::try_from(request.0.len()).unwrap();
        connection.write_all(&length.to_be_bytes()).unwrap();
        connection.write_all(&request.0).unwrap();
        let mut length = [0; 4];
        connection.read_exact(&mut length).expect("an answer");
        let mut bytes = vec![0; usize::try_from(i32::from_be_bytes(length)).unwrap()];
        connection.read_exact(&mut bytes).expect("an answer");
        let mut answer = Answer { bytes, next: 0 };
        assert_eq!(answer.i32(), 0, "the correlation ID");
        answer
    }
}

/// The body of a response.
struct Answer {
    bytes: Vec<u8>,
    next: usize,
}

impl Answer {
    fn i8(&mut self) -> i8 {
        i8::from_be_bytes(self.take())
    }

    fn i16(&mut self) -> i16 {
        i16::from_be_bytes(self.take())
    }

    fn i32(&mut self) -> i32 {
        i32::from_be_bytes(self.take())
    }

    /// A string; empty for null.
    fn string(&mut self) -> String {
        let length = usize::try_from(self.i16()).unwrap_or(0);
        let text = &self.bytes[self.next..self.next + length];
        self.next += length;
        String::from_utf8_lossy(text).into_owned()
    }

    /// Reads an error code and its message.
    fn assert_success(&mut self) {
        let (code, message) = (self.i16(), self.string());
        assert_eq!(code, 0, "the broker rejects the request: {message}");
    }

    fn take<const N: usize>(&mut self) -> [u8; N] {
        let taken = self.bytes[self.next..self.next + N].try_into().unwrap();
        self.next += N;
        taken
    }
}
