//! Why a record can never be applied to a state.

use thiserror::Error;

use crate::notification::MAX_ID_BYTES;

/// A record that no stream can ever apply, however often it is read: a poison pill.
///
/// It goes to the dead-letter topic with `Poison::reason` and, as the detail, its text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Poison {
    /// A value that is absent, too, is not a JSON object.
    #[error("the value is not a JSON object in UTF-8")]
    NotJsonObject,
    /// The push names a type that belongs to another stream.
    #[error("notifyType is not the type that this stream reads")]
    OtherNotifyType,
    /// A confirmation without a usable `header.requestId`.
    #[error("header.requestId is missing, empty, or neither a string nor a number")]
    RequestIdMissing,
    /// A confirmation whose `header.requestId` exceeds [`MAX_ID_BYTES`].
    #[error("header.requestId is longer than {MAX_ID_BYTES} bytes")]
    RequestIdTooLong,
    /// An upgrade result without a usable `deviceId`.
    #[error("deviceId is missing, empty, or neither a string nor a number")]
    DeviceIdMissing,
    /// An upgrade result whose `deviceId` exceeds [`MAX_ID_BYTES`].
    #[error("deviceId is longer than {MAX_ID_BYTES} bytes")]
    DeviceIdTooLong,
    /// An upgrade result that does not say how the upgrade ended.
    #[error("swUpgradeResult is missing or not a string")]
    ResultMissing,
    /// An upgrade result with a word that is not known for either result.
    #[error("swUpgradeResult is neither a success nor a failure")]
    ResultUnknown,
    /// Another writer put something else into the internal topic.
    #[error("the value is not an upgrade delta")]
    NotADelta,
}

impl Poison {
    /// The value of the header `northbridge-reason`, from a closed list that never changes.
    pub(crate) fn reason(self) -> &'static str {
        match self {
            Self::NotJsonObject => "not-json-object",
            Self::OtherNotifyType => "other-notify-type",
            Self::RequestIdMissing => "request-id-missing",
            Self::RequestIdTooLong => "request-id-too-long",
            Self::DeviceIdMissing => "device-id-missing",
            Self::DeviceIdTooLong => "device-id-too-long",
            Self::ResultMissing => "result-missing",
            Self::ResultUnknown => "result-unknown",
            Self::NotADelta => "not-a-delta",
        }
    }
}
