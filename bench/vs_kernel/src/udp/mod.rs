//! UDP echo: a server on a wire of the kernel's, and a load on any.

mod load;
mod server;

pub use load::UdpLoad;
pub use server::echo;

use rxperf::payload::Pattern;

/// Buffers of a wire: several bursts.
pub const BUFFERS: usize = 1024;
/// The least payload: the request's name, and as much again to be verified.
pub const PAYLOAD_MIN: usize = 16;
/// Bytes of the request's name.
const NAME: usize = 8;

/// Writes a request: its name, and behind that bytes that follow from it.
fn fill(payload: &mut [u8], seed: u64, name: u64) {
    let (head, rest) = payload.split_at_mut(NAME);
    head.copy_from_slice(&name.to_le_bytes());
    Pattern::new(seed ^ name).fill(0, rest);
}

/// The name of the request that this is the whole echo of.
fn verify(payload: &[u8], seed: u64, len: usize) -> Result<u64, String> {
    let Some((head, rest)) = payload.split_first_chunk::<NAME>().filter(|_| payload.len() == len) else {
        return Err(format!("a reply of {} bytes to a request of {len}", payload.len()));
    };
    let name = u64::from_le_bytes(*head);
    match Pattern::new(seed ^ name).first_difference(0, rest) {
        None => Ok(name),
        Some(at) => Err(format!("byte {} of the reply to {name:#x} is {:#04x}", NAME + at, rest[at])),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_changed_byte_and_any_other_length_is_found() {
        let mut payload = [0; 64];
        fill(&mut payload, 7, 0x5_0000_0003);
        assert_eq!(verify(&payload, 7, 64), Ok(0x5_0000_0003));
        assert!(verify(&payload, 8, 64).is_err(), "another run's");
        assert!(verify(&payload[..63], 7, 64).unwrap_err().contains("63 bytes"));
        assert!(verify(&[], 7, 64).is_err());
        for at in 0..payload.len() {
            payload[at] ^= 0x10;
            assert!(verify(&payload, 7, 64).is_err(), "byte {at}");
            payload[at] ^= 0x10;
        }
    }
}
