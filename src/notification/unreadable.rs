//! Why a push could not be read, as text for a dead letter.
//!
//! The text never contains bytes of the body, so that it can neither leak them nor forge a log line
//! or a header.

use std::str::Utf8Error;

use super::drift::Field;
use super::{MAX_ID_BYTES, Subject};

/// A push that could not be read, with what is known of it nevertheless.
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
    pub(crate) fn not_gzip() -> Self {
        Self::new(Cause::NotGzip, Subject::unknown())
    }

    /// One of [`Cause::REASONS`].
    pub(crate) fn reason(&self) -> &'static str {
        self.cause.reason()
    }

    /// What is known of the push. Its key is the best id that could be read, if any.
    pub(crate) fn subject(&self) -> &Subject<'a> {
        &self.subject
    }
}

/// What is wrong with a push; its text has at most 512 bytes.
#[derive(Debug, thiserror::Error)]
pub enum Cause {
    /// The `Content-Encoding` is gzip (RFC 1952), but the bytes are not.
    #[error("Content-Encoding is gzip, but the body is not valid gzip")]
    NotGzip,
    /// The body is not UTF-8, which RFC 8259 requires.
    #[error("the body is not UTF-8: {0}")]
    NotUtf8(Utf8Error),
    /// The body is not JSON (RFC 8259), or has something after its value.
    #[error("the body is not JSON: {0}")]
    NotJson(serde_json::Error),
    /// The body is several JSON values, one after the other.
    #[error("the body has several JSON values; a push is one")]
    SeveralValues,
    /// The body is a JSON value of another type.
    #[error("the body is JSON, but not an object")]
    NotAnObject,
    /// The object is neither a notification nor a command callback nor an envelope, and has no id.
    #[error(
        "the body has no notifyType, is neither a command callback nor a version 5 envelope, and has no id at a known place"
    )]
    UnknownShape,
    /// The id that keys this type cannot be a key.
    #[error("{field} {problem}")]
    Id {
        /// The field that should contain the id.
        field: Field,
        /// Why it does not.
        problem: IdProblem,
    },
    /// Under strict validation, a field that violates its published table.
    #[error("{field} violates the published field table")]
    FieldTable {
        /// The first such field, in the order of the table.
        field: Field,
    },
}

impl Cause {
    /// Every reason. They never change: dead letters hold them, and `replay` selects by them.
    pub(crate) const REASONS: &'static [&'static str] = &[
        "not-gzip",
        "not-utf8",
        "not-json",
        "several-values",
        "not-an-object",
        "unknown-shape",
        IdProblem::Missing.reason(),
        IdProblem::NotAString.reason(),
        IdProblem::Empty.reason(),
        IdProblem::TooLong.reason(),
        IdProblem::NotInPath.reason(),
        "field-table",
    ];

    /// One of [`Cause::REASONS`].
    pub(crate) fn reason(&self) -> &'static str {
        match self {
            Self::NotGzip => "not-gzip",
            Self::NotUtf8(_) => "not-utf8",
            Self::NotJson(_) => "not-json",
            Self::SeveralValues => "several-values",
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
    /// Neither a string nor a number, or a string with a lone surrogate, which UTF-8 cannot
    /// represent.
    #[error("is neither a string nor a number")]
    NotAString,
    /// The empty string.
    #[error("is empty")]
    Empty,
    /// A text of more than [`MAX_ID_BYTES`].
    #[error("is longer than {MAX_ID_BYTES} bytes")]
    TooLong,
    /// A string that does not start with `/devices/`.
    #[error("is not of the form /devices/{{deviceId}}")]
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
