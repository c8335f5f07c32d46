//! Why a push could not be placed, in words fit for a dead letter.
//!
//! The words never hold bytes of the body, so that a log or a header cannot leak or be forged.

use std::str::Utf8Error;

use super::drift::Field;
use super::{MAX_ID_BYTES, Subject};

/// A push that could not be placed, and what is known of it all the same.
#[derive(Debug, thiserror::Error)]
#[error("{cause}")]
pub struct Unreadable<'a> {
    cause: Cause,
    subject: Subject<'a>,
}

impl<'a> Unreadable<'a> {
    pub(super) fn new(cause: Cause, subject: Subject<'a>) -> Self {
        Self { cause, subject }
    }

    /// A push whose bytes could not be decompressed, so that nothing is known of it.
    pub fn not_gzip() -> Self {
        Self::new(Cause::NotGzip, Subject::unknown())
    }

    /// What is wrong.
    pub fn cause(&self) -> &Cause {
        &self.cause
    }

    /// What is wrong, as one of [`Cause::REASONS`].
    pub fn reason(&self) -> &'static str {
        self.cause.reason()
    }

    /// What is known of the push: its key is the best id that could be read, if any.
    pub fn subject(&self) -> &Subject<'a> {
        &self.subject
    }
}

/// What is wrong with a push; shown, it is a sentence of at most 512 bytes.
#[derive(Debug, thiserror::Error)]
pub enum Cause {
    /// The bytes claimed to be gzip (RFC 1952) and are not.
    #[error("the body is not the gzip that its Content-Encoding claims")]
    NotGzip,
    /// The body is not UTF-8, the encoding that RFC 8259 asks for.
    #[error("the body is not UTF-8: {0}")]
    NotUtf8(Utf8Error),
    /// The body is not JSON (RFC 8259), or has something behind its value.
    #[error("the body is not JSON: {0}")]
    NotJson(serde_json::Error),
    /// The body is JSON, but not an object.
    #[error("the body is JSON, but not an object")]
    NotAnObject,
    /// The object is neither a notification nor a callback nor an envelope.
    #[error("no notifyType, and neither a command's callback nor a version 5 envelope")]
    UnknownShape,
    /// The id that keys this type cannot be a key.
    #[error("{field} {problem}")]
    Id {
        /// Where the id stands.
        field: Field,
        /// What is wrong with it.
        problem: IdProblem,
    },
    /// Under strict validation: a field is not as published.
    #[error("{field} is not as its published table has it")]
    FieldTable {
        /// The first such field.
        field: Field,
    },
}

impl Cause {
    /// Every reason there is: lasting names, also for choosing what to replay.
    pub const REASONS: &'static [&'static str] = &[
        "not-gzip",
        "not-utf8",
        "not-json",
        "not-an-object",
        "unknown-shape",
        IdProblem::Missing.reason(),
        IdProblem::NotAString.reason(),
        IdProblem::Empty.reason(),
        IdProblem::TooLong.reason(),
        IdProblem::NotInPath.reason(),
        "field-table",
    ];

    /// The reason's lasting name, one of [`Cause::REASONS`].
    pub fn reason(&self) -> &'static str {
        match self {
            Self::NotGzip => "not-gzip",
            Self::NotUtf8(_) => "not-utf8",
            Self::NotJson(_) => "not-json",
            Self::NotAnObject => "not-an-object",
            Self::UnknownShape => "unknown-shape",
            Self::Id { problem, .. } => problem.reason(),
            Self::FieldTable { .. } => "field-table",
        }
    }
}

/// Why an id cannot be a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum IdProblem {
    /// The field, or the object around it, is missing or null.
    #[error("is missing or null")]
    Missing,
    /// Another JSON value, or a string with half of a surrogate pair, which is no text.
    #[error("is not a string")]
    NotAString,
    /// A string without a character.
    #[error("is empty")]
    Empty,
    /// More than [`MAX_ID_BYTES`].
    #[error("is longer than {MAX_ID_BYTES} bytes")]
    TooLong,
    /// A string that should be a path with a device in it, and is not.
    #[error("is not a path to a device")]
    NotInPath,
}

impl IdProblem {
    const fn reason(self) -> &'static str {
        match self {
            Self::Missing => "id-missing",
            Self::NotAString => "id-not-a-string",
            Self::Empty => "id-empty",
            Self::TooLong => "id-too-long",
            Self::NotInPath => "id-not-in-path",
        }
    }
}
