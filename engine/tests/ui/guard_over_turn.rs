//! A handler cannot keep the permission to read either.

use engine::rcu::ReadGuard;
use engine::{Cx, Datagram, Handler, Outcome, Socket};

struct Keeper {
    kept: Option<ReadGuard<'static>>,
}

impl Handler for Keeper {
    type Command = ();

    fn input(&mut self, _: &mut Cx<'_>, _: &Socket, _: Datagram) -> Outcome {
        Outcome::Delivered
    }

    fn command(&mut self, cx: &mut Cx<'_>, (): ()) {
        self.kept = Some(cx.guard());
    }
}

fn main() {}
