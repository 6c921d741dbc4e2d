//! [`CaptureWish`]: what a client asks to be captured.

use serde::{Deserialize, Serialize};

/// What is to be captured.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CaptureWish {
    /// The engine's name; the only one if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub engine: Option<String>,
    /// The port's number or URL; all ports if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<String>,
    /// Frames that were received and not dropped.
    pub received: bool,
    /// Frames that were sent.
    pub sent: bool,
    /// Frames that were dropped, and datagrams that were not sent.
    pub drops: bool,
    /// Bytes wanted of a frame.
    pub snaplen: usize,
    /// A [`Filter`](crate::filter::Filter).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub filter: Option<String>,
}

impl Default for CaptureWish {
    /// Everything, whole.
    fn default() -> Self {
        let snaplen = engine::SNAPLEN_MAX;
        CaptureWish {
            engine: None,
            port: None,
            received: true,
            sent: true,
            drops: true,
            snaplen,
            filter: None,
        }
    }
}
