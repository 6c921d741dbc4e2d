//! The small bodies: ABORT and VERSION.

use super::Header;

/// Length of the body of a VERSION reply: 64 bytes of text and a NUL.
pub const VERSION_LEN: usize = 65;

/// An ABORT: its code and the service it names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Abort {
    /// The code. Negative ones are Rx's own; the rest are the service's.
    pub code: i32,
    /// The service id, or `None` if the header names none; see [`Abort::parse`].
    pub service: Option<u16>,
}

impl Abort {
    /// Length of the body that we write.
    pub const LEN: usize = 4;

    /// Reads an ABORT.
    ///
    /// OpenAFS sends some ABORTs without looking a connection up and then writes the service id where the checksum
    /// belongs, leaving the service id zero. Such a packet names its service all the same; since anybody can write
    /// anything there, it is to be believed only on a connection that is known.
    pub fn parse(header: &Header, body: &[u8]) -> Result<Self, AbortError> {
        let (code, _) = body.split_first_chunk().ok_or(AbortError::TooShort { len: body.len() })?;
        let service = [header.service, header.checksum].into_iter().find(|&id| id != 0);
        Ok(Self { code: i32::from_be_bytes(*code), service })
    }

    /// The body for a code.
    pub const fn body(code: i32) -> [u8; Self::LEN] {
        code.to_be_bytes()
    }
}

/// Why a body is no ABORT.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AbortError {
    /// No room for a code.
    #[error("an ABORT of {len} bytes has no code")]
    TooShort {
        /// Bytes there were.
        len: usize,
    },
}

/// The body of a VERSION reply: the text, cut at a character within 64 bytes, then zeros.
pub fn encode_version(text: &str) -> [u8; VERSION_LEN] {
    let mut body = [0; VERSION_LEN];
    let len = (0..VERSION_LEN).rev().find(|&end| text.is_char_boundary(end)).unwrap_or(0);
    body[..len].copy_from_slice(&text.as_bytes()[..len]);
    body
}

/// The text of a VERSION reply: all before the first NUL. What is not printable comes back as `\u{fffd}`, since the
/// text is a stranger's and ends up on terminals.
pub fn parse_version(body: &[u8]) -> String {
    let end = body.iter().position(|&byte| byte == 0).unwrap_or(body.len()).min(VERSION_LEN);
    let text = String::from_utf8_lossy(&body[..end]);
    text.chars().map(|c| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c }).collect()
}
