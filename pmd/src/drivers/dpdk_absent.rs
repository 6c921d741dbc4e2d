//! `dpdk:` in a program that was built without it.

use crate::port::{OpenOptions, Port, PortError};
use crate::url::Url;

pub(crate) fn open(url: Url<'_>, _options: &OpenOptions) -> Result<Box<dyn Port>, PortError> {
    let mend = "build it with --features dpdk, which needs DPDK 22.11 or later: apt install libdpdk-dev libclang-dev";
    Err(url.bad("this program was built without DPDK".to_owned(), mend.to_owned()))
}
