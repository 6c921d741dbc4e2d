//! rxkad's abort codes (OpenAFS src/rxkad/rxkad_errs.et).

/// The security class contradicts itself: a version that nobody speaks.
pub const INCONSISTENCY: i32 = 19_270_400;
/// A CHALLENGE or RESPONSE is too short.
pub const PACKET_SHORT: i32 = 19_270_401;
/// The client's level is less than the server wants.
pub const LEVEL_FAIL: i32 = 19_270_402;
/// A ticket is too long or too short.
pub const TICKET_LEN: i32 = 19_270_403;
/// The RESPONSE answers another CHALLENGE.
pub const OUT_OF_SEQUENCE: i32 = 19_270_404;
/// The caller is not authorized.
pub const NO_AUTH: i32 = 19_270_405;
/// A key is weak.
pub const BAD_KEY: i32 = 19_270_406;
/// A ticket that does not open, or says nothing sensible.
pub const BAD_TICKET: i32 = 19_270_407;
/// The ticket is for a key that the server does not have.
pub const UNKNOWN_KEY: i32 = 19_270_408;
/// The ticket's time is over.
pub const EXPIRED: i32 = 19_270_409;
/// What was sealed contradicts the packet it came in.
pub const SEALED_INCONSISTENT: i32 = 19_270_410;
/// A sealed length is more than there is.
pub const DATA_LEN: i32 = 19_270_411;
/// The caller may not use this level.
pub const ILLEGAL_LEVEL: i32 = 19_270_412;

/// The code's name, for the codes above.
pub fn name(code: i32) -> Option<&'static str> {
    Some(match code {
        INCONSISTENCY => "RXKADINCONSISTENCY",
        PACKET_SHORT => "RXKADPACKETSHORT",
        LEVEL_FAIL => "RXKADLEVELFAIL",
        TICKET_LEN => "RXKADTICKETLEN",
        OUT_OF_SEQUENCE => "RXKADOUTOFSEQUENCE",
        NO_AUTH => "RXKADNOAUTH",
        BAD_KEY => "RXKADBADKEY",
        BAD_TICKET => "RXKADBADTICKET",
        UNKNOWN_KEY => "RXKADUNKNOWNKEY",
        EXPIRED => "RXKADEXPIRED",
        SEALED_INCONSISTENT => "RXKADSEALEDINCON",
        DATA_LEN => "RXKADDATALEN",
        ILLEGAL_LEVEL => "RXKADILLEGALLEVEL",
        _ => return None,
    })
}
