//! What the endpoint's own user may do at any time, well or badly.

use crate::bytes::Bytes;
use crate::world::{CHARGED, SERVICE, UPGRADED, World};
use rxrpc::wire::debug::{DebugKind, DebugRequest};
use rxrpc::{CallId, CallOptions, CallTimeouts, NetError, Target};
use std::time::Duration;

impl World<'_> {
    /// A call, by number.
    fn any_call(&self, number: u8) -> Option<CallId> {
        let calls = self.rx.calls().count();
        self.rx.calls().nth(usize::from(number) % calls.max(1)).map(|call| call.id)
    }

    /// Begins a call.
    pub fn begin(&mut self, bytes: &mut Bytes<'_>) {
        let (peer, how) = (self.peer(bytes.u8()), bytes.u8());
        let limit = |bit: u8| (how & bit != 0).then_some(Duration::from_millis(700));
        let options = CallOptions {
            hard_timeout: limit(1),
            idle_timeout: limit(2),
            dead_timeout: limit(4),
            exclusive: how & 8 != 0,
            upgrade: how & 16 != 0,
            tx_length: (how & 32 != 0).then(|| u64::from(bytes.u8())),
            ..CallOptions::default()
        };
        let target = Target { group: u32::from(how >> 7), ..Target::new(peer, SERVICE) };
        let _ = self.rx.begin(self.now, self.local, target, options);
    }

    /// Something to a call.
    pub fn act(&mut self, bytes: &mut Bytes<'_>) {
        let (what, number) = (bytes.u8(), bytes.u8());
        let Some(call) = self.any_call(number) else { return };
        let now = self.now;
        match what % 9 {
            0 | 1 => {
                let len = usize::from(bytes.u8()) * 2;
                let more = what & 16 != 0;
                let _ = self.rx.send(now, self.pool, call, &[number; 510][..len], more);
            }
            2 => {
                let Some(data) = self.pool.copy_from(&[what; 300][..usize::from(bytes.u8())]) else { return };
                let _ = self.rx.send_mbuf(now, self.pool, call, data, what & 16 != 0);
            }
            3 => drop(self.rx.recv(now, call, &mut [0; 256][..usize::from(number)])),
            4 => drop(self.rx.recv_mbuf(now, call)),
            5 => self.rx.abort(now, call, i32::from(what)),
            6 => {
                self.rx.release(now, call);
                assert!(self.rx.call(call).is_none(), "released, and still there");
            }
            7 => {
                let limit =
                    |bit: u8| (what & bit != 0).then(|| Duration::from_millis(u64::from(number) * 20));
                let timeouts = CallTimeouts { hard: limit(16), idle: limit(32), normal: limit(64) };
                self.rx.set_timeouts(now, call, &timeouts);
            }
            _ => {
                self.rx.give_up(now, call);
            }
        }
    }

    /// Something to the endpoint.
    pub fn manage(&mut self, bytes: &mut Bytes<'_>) {
        let (what, which) = (bytes.u8(), bytes.u8());
        let (now, peer) = (self.now, self.peer(which));
        let service = [SERVICE, UPGRADED, CHARGED][usize::from(which) % 3];
        match what % 7 {
            0 => drop(self.rx.charge(self.local, CHARGED, usize::from(which % 4))),
            1 => drop(self.rx.uncharge(self.local, CHARGED)),
            2 => drop(self.rx.unlisten(self.local, service)),
            3 => self.listen(),
            4 => self.rx.unreachable(now, self.local, peer, NetError::HostUnreachable),
            5 => drop(self.rx.probe_version(now, self.local, peer)),
            _ => {
                let request = DebugRequest::new(DebugKind::from_u32(1).expect("a kind"), u32::from(which));
                let _ = self.rx.send_debug(now, self.local, peer, request);
            }
        }
    }
}
