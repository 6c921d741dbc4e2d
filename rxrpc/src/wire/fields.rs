//! Fixed layouts written down once: [`layout!`] makes a struct, its length, its decoder and its encoder from one list of
//! fields, so that the three cannot disagree. Used where speed does not matter (the DEBUG protocol).

use super::NoRoom;
use std::net::Ipv4Addr;

/// A value of fixed length on the wire.
pub trait Field: Sized {
    /// Its length in bytes.
    const LEN: usize;
    /// Takes it from the front of `bytes`; `None` if it is not all there.
    fn take(bytes: &mut &[u8]) -> Option<Self>;
    /// Appends it at the front of `out`, which must have room, and moves `out` behind it.
    fn put(&self, out: &mut &mut [u8]);
}

fn put_bytes(out: &mut &mut [u8], bytes: &[u8]) {
    let (here, rest) = std::mem::take(out).split_at_mut(bytes.len());
    here.copy_from_slice(bytes);
    *out = rest;
}

fn take_bytes<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
    let (here, rest) = bytes.split_first_chunk()?;
    *bytes = rest;
    Some(*here)
}

macro_rules! integers {
    ($($int:ty),*) => {$(
        impl Field for $int {
            const LEN: usize = size_of::<$int>();
            fn take(bytes: &mut &[u8]) -> Option<Self> {
                take_bytes(bytes).map(<$int>::from_be_bytes)
            }
            fn put(&self, out: &mut &mut [u8]) {
                put_bytes(out, &self.to_be_bytes());
            }
        }
    )*};
}
integers!(u8, u16, u32, i32, u64);

impl Field for Ipv4Addr {
    const LEN: usize = 4;
    fn take(bytes: &mut &[u8]) -> Option<Self> {
        take_bytes::<4>(bytes).map(Self::from)
    }
    fn put(&self, out: &mut &mut [u8]) {
        put_bytes(out, &self.octets());
    }
}

impl<T: Field + Copy + Default, const N: usize> Field for [T; N] {
    const LEN: usize = N * T::LEN;
    fn take(bytes: &mut &[u8]) -> Option<Self> {
        let mut all = [T::default(); N];
        for one in &mut all {
            *one = T::take(bytes)?;
        }
        Some(all)
    }
    fn put(&self, out: &mut &mut [u8]) {
        self.iter().for_each(|one| one.put(out));
    }
}

/// `N` bytes that mean nothing: skipped when read, zero when written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Spare<const N: usize>;

impl<const N: usize> Field for Spare<N> {
    const LEN: usize = N;
    fn take(bytes: &mut &[u8]) -> Option<Self> {
        take_bytes::<N>(bytes).map(|_| Self)
    }
    fn put(&self, out: &mut &mut [u8]) {
        put_bytes(out, &[0; N]);
    }
}

/// Writes a value at the start of `out` and returns its length.
pub fn encode<F: Field>(value: &F, mut out: &mut [u8]) -> Result<usize, NoRoom> {
    if out.len() < F::LEN {
        return Err(NoRoom { needed: F::LEN, room: out.len() });
    }
    value.put(&mut out);
    Ok(F::LEN)
}

/// Declares a struct of [`Field`]s in the order of the wire.
macro_rules! layout {
    ($(#[$meta:meta])* pub struct $name:ident { $($(#[$doc:meta])* pub $field:ident: $type:ty,)* }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub struct $name { $($(#[$doc])* pub $field: $type,)* }

        impl $crate::wire::fields::Field for $name {
            const LEN: usize = 0 $(+ <$type as $crate::wire::fields::Field>::LEN)*;
            fn take(bytes: &mut &[u8]) -> Option<Self> {
                Some(Self { $($field: <$type as $crate::wire::fields::Field>::take(bytes)?,)* })
            }
            fn put(&self, out: &mut &mut [u8]) {
                $($crate::wire::fields::Field::put(&self.$field, out);)*
            }
        }
    };
}
pub(super) use layout;
