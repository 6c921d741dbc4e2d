//! A handler lives over quiescent states, so it cannot keep a socket that it was shown.

use engine::{Cx, Datagram, Handler, Outcome, Socket, SocketId};

struct Keeper {
    kept: Option<&'static Socket>,
}

impl Handler for Keeper {
    type Command = SocketId;

    fn input(&mut self, _: &mut Cx<'_>, socket: &Socket, _: Datagram) -> Outcome {
        self.kept = Some(socket);
        Outcome::Delivered
    }

    fn command(&mut self, cx: &mut Cx<'_>, id: SocketId) {
        self.kept = cx.socket(id);
    }
}

fn main() {}
