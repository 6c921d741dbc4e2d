//! Security class 0: none.

use crate::RxDrop;
use crate::wire::Header;
use pmd::Mbuf;

/// Its number on the wire.
pub const INDEX: u8 = 0;

/// It has no state.
#[derive(Debug)]
pub struct Null;

impl Null {
    pub fn secured(&self) -> bool {
        true
    }

    /// Nobody was asked.
    pub fn respond(&mut self, _response: &[u8]) -> Result<(), RxDrop> {
        Err(RxDrop::Unexpected)
    }

    pub fn open(&mut self, _header: &Header, _data: &mut Mbuf) -> Result<(), i32> {
        Ok(())
    }
}
