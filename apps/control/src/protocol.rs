//! What passes over the socket: one JSON object a line, a request first and then its answer, as often as the client
//! likes.
//!
//! ```text
//! > {"v":1,"ask":"conns","rows":100}
//! < {"v":1,"answer":{"rows":[{"engine":"gateway","core":0,...}],"next":[0,0,3]}}
//! > {"v":1,"ask":"conns","rows":100,"from":[0,0,3]}
//! < {"v":1,"answer":{"rows":[],"next":null}}
//! > {"v":1,"ask":"weather"}
//! < {"v":1,"error":{"code":"bad_request","message":"unknown variant `weather`, expected one of ..."}}
//! ```
//!
//! Within a version, members are added and never renamed or taken away: skip those you do not know.

use serde::{Deserialize, Serialize};

use crate::wish::CaptureWish;

/// Of this protocol.
pub const VERSION: u32 = 1;
/// Bytes of a request, its newline included.
pub const REQUEST_MAX: usize = 4096;
/// Rows of an answer.
pub const ROWS_MAX: usize = 256;

/// A request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    /// [`VERSION`].
    pub v: u32,
    /// For what.
    pub ask: Ask,
    /// Listings: `next` of the answer before; from the start if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<Cursor>,
    /// Listings: rows wanted, at most [`ROWS_MAX`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rows: Option<usize>,
    /// Of [`Ask::Capture`]: of what.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub capture: Option<CaptureWish>,
}

/// What can be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ask {
    /// Who is this? A [`Hello`].
    Hello,
    /// A page of [`CallRow`](crate::rows::CallRow)s.
    Calls,
    /// A page of [`ConnRow`](crate::rows::ConnRow)s.
    Conns,
    /// A page of [`RelayRow`](crate::rows::RelayRow)s.
    Relayed,
    /// A page of [`PeerRow`](crate::rows::PeerRow)s.
    Peers,
    /// A page of [`LocalRow`](crate::rows::LocalRow)s.
    Locals,
    /// A [`Snapshot`](crate::Snapshot) of all figures.
    Top,
    /// The same as Prometheus text, in a string.
    Metrics,
    /// Begin to capture frames: a [`CaptureStarted`](crate::CaptureStarted). Lasts as long as the connection, and as the client asks
    /// for what came at least every ten seconds.
    Capture,
    /// What came since: a [`CapturedPage`](crate::CapturedPage).
    Captured,
}

/// A place in a listing: engine, core, slot of the table. To be given back as it came.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cursor(pub usize, pub usize, pub usize);

/// An answer.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Answer<T> {
    /// [`VERSION`].
    pub v: u32,
    /// The member `answer`, or the member `error`.
    #[serde(flatten)]
    pub outcome: Outcome<T>,
}

/// How a request ended.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome<T> {
    /// Well.
    Answer(T),
    /// Not well.
    Error(Refusal),
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// For programs.
    pub code: RefusalCode,
    /// For people: what was wrong and what would be right.
    pub message: String,
}

/// The kinds of refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RefusalCode {
    /// Not JSON, or not a request.
    BadRequest,
    /// Another version of the protocol.
    UnsupportedVersion,
    /// Longer than [`REQUEST_MAX`]. The connection is closed.
    TooLong,
    /// Another user's. The connection is closed.
    NotAllowed,
    /// A core did not answer in time.
    CoreSilent,
    /// Not now: somebody else captures, or the engine has stopped.
    Unavailable,
}

/// A part of a listing.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Rows<T> {
    /// At most as many as asked for; none does not mean the end.
    pub rows: Vec<T>,
    /// To be asked for next; `None`: that was the last.
    pub next: Option<Cursor>,
}

/// Who answers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Hello {
    /// The `rxline` command: `gateway`.
    pub command: String,
    /// rxline's version.
    pub version: String,
    /// Process id.
    pub pid: u32,
    /// Since its start.
    pub uptime_seconds: f64,
    /// Names of its engines.
    pub engines: Vec<String>,
}

impl Refusal {
    pub(crate) fn new(code: RefusalCode, message: impl Into<String>) -> Self {
        Refusal { code, message: message.into() }
    }
}

impl Request {
    /// A request without options.
    pub fn new(ask: Ask) -> Self {
        Request { v: VERSION, ask, from: None, rows: None, capture: None }
    }

    /// Understands a line. The version comes first: what else another version has in it is not ours to judge.
    pub(crate) fn parse(line: &[u8]) -> Result<Self, Refusal> {
        #[derive(Deserialize)]
        struct Version {
            v: Option<u32>,
        }
        let bad = |error: serde_json::Error| {
            let message = format!("{error}; a request is one line such as {{\"v\":1,\"ask\":\"top\"}}");
            Refusal::new(RefusalCode::BadRequest, message)
        };
        match serde_json::from_slice::<Version>(line).map_err(bad)?.v {
            Some(VERSION) => serde_json::from_slice(line).map_err(bad),
            Some(other) => Err(Refusal::new(
                RefusalCode::UnsupportedVersion,
                format!(
                    "version {other} is not known here, only {VERSION}: use an rxline of the same version"
                ),
            )),
            None => Err(Refusal::new(
                RefusalCode::BadRequest,
                format!("the member \"v\" is missing: say \"v\":{VERSION}"),
            )),
        }
    }
}

/// An answer as a line.
pub(crate) fn line<T: Serialize>(outcome: Result<T, Refusal>) -> Vec<u8> {
    let outcome = match outcome {
        Ok(answer) => Outcome::Answer(answer),
        Err(refusal) => Outcome::Error(refusal),
    };
    let mut line = serde_json::to_vec(&Answer { v: VERSION, outcome }).expect("plain data");
    line.push(b'\n');
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_request_is_refused_with_a_reason() {
        for (line, code, names) in [
            ("", RefusalCode::BadRequest, "EOF"),
            ("hello", RefusalCode::BadRequest, "expected"),
            ("[]", RefusalCode::BadRequest, "\"ask\":\"top\""),
            ("{}", RefusalCode::BadRequest, "\"v\":1"),
            (r#"{"v":1}"#, RefusalCode::BadRequest, "`ask`"),
            (r#"{"v":2,"tell":"all"}"#, RefusalCode::UnsupportedVersion, "only 1"),
            (r#"{"v":1,"ask":"weather"}"#, RefusalCode::BadRequest, "`conns`"),
            (r#"{"v":1,"ask":"calls","form":[0,0,0]}"#, RefusalCode::BadRequest, "`form`"),
            (r#"{"v":1,"ask":"calls","from":[0,-1,0]}"#, RefusalCode::BadRequest, "-1"),
            ("\u{0}\u{1}", RefusalCode::BadRequest, "expected"),
        ] {
            let refusal = Request::parse(line.as_bytes()).expect_err(line);
            assert_eq!(refusal.code, code, "{line}");
            assert!(refusal.message.contains(names), "{line}: {}", refusal.message);
        }
    }

    #[test]
    fn an_answer_is_one_line_that_is_read_back() {
        let rows = Rows { rows: vec!["a\nb"], next: Some(Cursor(1, 2, 3)) };
        let line = line(Ok(&rows));
        assert_eq!(line.iter().filter(|&&byte| byte == b'\n').count(), 1);
        let back: Answer<Rows<String>> = serde_json::from_slice(&line).unwrap();
        let Outcome::Answer(back) = back.outcome else { panic!("{back:?}") };
        assert_eq!((back.rows, back.next), (vec!["a\nb".to_string()], Some(Cursor(1, 2, 3))));
    }
}
